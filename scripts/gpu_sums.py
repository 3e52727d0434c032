#!/usr/bin/env python3
"""What the instructions of this machine's GPU give, for the simulated one to be compared with.

    scripts/gpu_sums.py OUT.json               # needs a GPU, numpy and cupy
    scripts/gpu_sums.py --compare OUT.json     # with the simulated GPU, whose tests have the same file
    scripts/gpu_sums.py --shorten OUT.json     # a third of it to standard output: crates/ptx/tests/golden/h200.json

Sums of Tensor Cores: for each form of `mma.sync` tiles of random operands, whose exponents lie far enough apart that the
order of additions and the bits kept while adding show in the last bits. Approximations: `ex2`, `lg2`, `rcp`, `rsqrt`,
`sqrt`, `tanh`, `sin`, `cos` of numbers of every magnitude. All values are bit patterns in hexadecimal.
"""
import json, sys
from pathlib import Path

try:
    import cupy, numpy as np
except ImportError:
    cupy = None  # `--compare` and `--shorten` need neither.

TILES = 24
# Form: instruction, bits of an operand's code.
FORMS = {
    "bf16": ("m16n8k16.row.col.f32.bf16.bf16.f32", 16),
    "f16": ("m16n8k16.row.col.f32.f16.f16.f32", 16),
    "tf32": ("m16n8k8.row.col.f32.tf32.tf32.f32", 32),
    "e4m3": ("m16n8k32.row.col.f32.e4m3.e4m3.f32", 8),
    "e5m2": ("m16n8k32.row.col.f32.e5m2.e5m2.f32", 8),
}
APPROXIMATIONS = ["ex2.approx.ftz", "ex2.approx", "lg2.approx", "rcp.approx", "rsqrt.approx", "sqrt.approx", "tanh.approx", "sin.approx", "cos.approx"]
# An operand's row of k is 8 words for every form: thread t of four has words t and t + 4.
MMA = r"""
extern "C" __global__ void sums(const unsigned* a, const unsigned* b, const float* c, float* d) {
    unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    a += blockIdx.x * 128; b += blockIdx.x * 64; c += blockIdx.x * 128; d += blockIdx.x * 128;
    unsigned at[4] = {g * 8 + 2 * t, g * 8 + 2 * t + 1, (g + 8) * 8 + 2 * t, (g + 8) * 8 + 2 * t + 1};
    float s[4];
    for (int i = 0; i < 4; ++i) s[i] = c[at[i]];
    asm volatile("mma.sync.aligned.FORM {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                 : "r"(a[g * 8 + t]), "r"(a[(g + 8) * 8 + t]), "r"(a[g * 8 + t + 4]), "r"(a[(g + 8) * 8 + t + 4]),
                   "r"(b[g * 8 + t]), "r"(b[g * 8 + t + 4]));
    for (int i = 0; i < 4; ++i) d[at[i]] = s[i];
}
"""
ONE = r"""
extern "C" __global__ void one(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) asm volatile("NAME.f32 %0, %1;" : "=f"(y[i]) : "f"(x[i]));
}
"""


def numbers(rng, shape, spread):
    exponent = rng.integers(-spread, spread + 1, shape)
    return (rng.choice([-1.0, 1.0], shape) * (1 + rng.random(shape)) * 2.0**exponent).astype(np.float32)


def codes(form, x):
    """The codes of f32 numbers, truncated rather than rounded: any codes will do."""
    bits = x.view(np.uint32)
    if form == "tf32":
        return bits & np.uint32(0xFFFFE000)
    if form == "bf16":
        return (bits >> np.uint32(16)).astype(np.uint16)
    half = x.astype(np.float16).view(np.uint16)
    if form == "f16":
        return half
    if form == "e5m2":
        return (half >> np.uint16(8)).astype(np.uint8)
    exponent = ((bits >> np.uint32(23)) & np.uint32(255)).astype(np.int64) - 127
    code = (np.clip(exponent, -6, 7) + 7 << 3) | ((bits >> np.uint32(20)) & np.uint32(7)).astype(np.int64)
    return (code | (bits >> np.uint32(31)).astype(np.int64) << 7).astype(np.uint8)


GOLDEN = Path(__file__).parents[1] / "crates/ptx/tests/golden/h200.json"


def compared(path):
    """Numbers that differ from the golden ones, by form and function; sums of Hopper may have none. The
    tests of crates/ptx hold the simulated GPU against the same file."""
    ours, golden = json.loads(shortened(path)), json.loads(GOLDEN.read_text())
    words = lambda text: [text[i : i + 8] for i in range(0, len(text), 8)]
    unlike = lambda a, b: sum(x != y for x, y in zip(words(a), words(b)))
    same_inputs = ours["arguments"] == golden["arguments"] and all(
        ours["sums"][form][key] == golden["sums"][form][key] for form in FORMS for key in "abc")
    sums = {form: unlike(ours["sums"][form]["d"], golden["sums"][form]["d"]) for form in FORMS}
    others = {name: unlike(ours["approximations"][name], golden["approximations"][name]) for name in APPROXIMATIONS}
    print(json.dumps({"gpu": ours["gpu"], "same_inputs": same_inputs, "sums_that_differ": sums,
                      "approximations_that_differ": others}))
    hopper = any(name in ours["gpu"] for name in ("H100", "H200", "GH200"))
    sys.exit(0 if same_inputs and not (hopper and any(sums.values())) else 1)


def shortened(path):
    """The first third of the tiles, each eighth argument, and the eight special ones at the end."""
    with open(path) as file:
        out = json.load(file)
    for sums in out["sums"].values():
        for key, words in sums.items():
            sums[key] = words[: len(words) // 3]
    # A number has 8 digits.
    some = lambda words: "".join(words[8 * i : 8 * i + 8] for i in [*range(0, len(words) // 8 - 8, 8), *range(len(words) // 8 - 8, len(words) // 8)])
    out["arguments"] = some(out["arguments"])
    out["approximations"] = {name: some(words) for name, words in out["approximations"].items()}
    return json.dumps(out, indent=0)


def main(path):
    rng = np.random.default_rng(14)
    hexadecimal = lambda a: np.ascontiguousarray(a).view(np.uint32).reshape(-1).tobytes().hex()
    out = {"gpu": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(), "sums": {}, "approximations": {}}
    for form, (instruction, bits) in FORMS.items():
        spread = {"bf16": 14, "tf32": 14, "f16": 6, "e4m3": 5, "e5m2": 8}[form]
        k = 256 // bits
        a = codes(form, numbers(rng, (TILES, 16, k), spread))
        b = codes(form, numbers(rng, (TILES, 8, k), spread))
        c = numbers(rng, (TILES, 16, 8), 2 * spread)
        c[::3] = 0
        d = cupy.zeros((TILES, 16, 8), cupy.float32)
        words = lambda x: cupy.asarray(np.ascontiguousarray(x).view(np.uint32))
        kernel = cupy.RawKernel(MMA.replace("FORM", instruction), "sums")
        kernel((TILES,), (32,), (words(a), words(b), cupy.asarray(c), d))
        out["sums"][form] = {"a": hexadecimal(a), "b": hexadecimal(b), "c": hexadecimal(c), "d": hexadecimal(d.get())}
    x = np.concatenate([numbers(rng, 3000, 20), numbers(rng, 500, 126), np.linspace(-20, 20, 500, dtype=np.float32),
                        np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1.0], np.float32)])
    out["arguments"] = hexadecimal(x)
    for name in APPROXIMATIONS:
        y = cupy.zeros(len(x), cupy.float32)
        cupy.RawKernel(ONE.replace("NAME", name), "one")((len(x) // 256 + 1,), (256,), (cupy.asarray(x), y, np.int32(len(x))))
        out["approximations"][name] = hexadecimal(y.get())
    with open(path, "w") as file:
        json.dump(out, file, indent=0)
    print(json.dumps({"gpu": out["gpu"], "sums": {form: TILES * 128 for form in FORMS}, "approximations": len(x)}))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--shorten":
        print(shortened(sys.argv[2]))
    elif len(sys.argv) == 3 and sys.argv[1] == "--compare":
        compared(sys.argv[2])
    elif len(sys.argv) == 2 and cupy:
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
