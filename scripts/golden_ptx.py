#!/usr/bin/env python3
"""Makes crates/ptx/tests/golden/formats.json and sums.json: what conversions between PTX's number formats and sums of
Tensor Cores give, by a second computation.

    pip install ml_dtypes numpy            # ml_dtypes 0.6 or later
    python scripts/golden_ptx.py

Values: all numbers halfway between two neighbours of a format, their f32 neighbours, every value of the format, special
values, and a million f32 patterns spread over all of them. Rounding to nearest even is ml_dtypes' and numpy's; the other
directions search the sorted values of the format, in f64, where all of this is exact. NaN is PTX's canonical one.

Sums: random products and accumulators of every exponent, added with Python's fractions, which are exact.
"""
import hashlib, json, warnings
from fractions import Fraction
from pathlib import Path

import ml_dtypes, numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/ptx/tests/golden/formats.json"
CASES = 4000
u32 = np.uint32
FORMATS = {  # name: (type, code type, code of the largest finite value, sign bit, canonical NaN, code of overflow)
    "f16": (np.float16, np.uint16, 0x7BFF, 15, 0x7FFF, 0x7C00),
    "bf16": (ml_dtypes.bfloat16, np.uint16, 0x7F7F, 15, 0x7FFF, 0x7F80),
    "tf32": (None, None, 0x3FBFF, 18, 0x7FFFFFFF >> 13, 0x3FC00),
    "e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 0x7E, 7, 0x7F, 0x7F),
    "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 0x7B, 7, 0x7F, 0x7C),
    "e3m2": (ml_dtypes.float6_e3m2fn, np.uint8, 0x1F, 5, 0x1F, 0x1F),
    "e2m3": (ml_dtypes.float6_e2m3fn, np.uint8, 0x1F, 5, 0x1F, 0x1F),
    "e2m1": (ml_dtypes.float4_e2m1fn, np.uint8, 0x07, 3, 0x07, 0x07),
}
SPECIAL = [0, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FC12345]


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def table(name):
    """The values of the codes from 0 to the largest, as f64."""
    kind, code, largest, *_ = FORMATS[name]
    codes = np.arange(largest + 1, dtype=u32)
    if name == "tf32":
        return (codes << u32(13)).view(np.float32).astype(np.float64)
    return codes.astype(code).view(kind).astype(np.float64)


def values(name):
    v = table(name)
    step = v[-1] - v[-2]
    middle = (v + np.append(v[1:], v[-1] + step)) / 2
    bits = middle.astype(np.float32).view(u32)
    exact = v.astype(np.float32).view(u32)
    around = np.stack([bits - u32(1), bits, bits + u32(1), exact], axis=1).reshape(-1)
    positive = np.concatenate([around, np.array(SPECIAL, u32)])
    spread = (np.arange(1_000_000, dtype=np.uint64) * np.uint64(0x9E3779B1)).astype(u32)
    return np.concatenate([positive, positive | u32(0x80000000), spread])


def convert(name, bits, mode, satfinite=False, relu=False):
    """Codes, as u32 without the padding of tf32."""
    kind, code, largest, sign_bit, nan, over = FORMATS[name]
    x = bits.view(np.float32).astype(np.float64)
    v = table(name)
    a, negative = np.abs(x), bits >> u32(31) == 1
    finite = np.where(np.isfinite(a), a, 0.0)
    below = np.searchsorted(v, finite, side="right") - 1
    step = np.append(v[1:], 2 * v[-1] - v[-2])[below] - v[below]
    fraction = (finite - v[below]) / step           # above 1 beyond the range
    if mode == "rn":
        up = (fraction > 0.5) | ((fraction == 0.5) & (below % 2 == 1))
    else:
        up = {"rna": fraction >= 0.5, "rz": fraction < 0, "rp": (fraction > 0) & ~negative, "rm": (fraction > 0) & negative}[mode]
    codes = (below + up).astype(np.int64)
    limit = satfinite or over <= largest
    codes = np.where((codes > largest) | np.isinf(a), largest if limit else over, codes)
    codes |= negative.astype(np.int64) << sign_bit
    if relu:
        codes[negative] = 0
    codes[np.isnan(x)] = nan
    codes = codes.astype(u32)
    if mode == "rn" and not satfinite and not relu and kind is not None:
        other = bits.view(np.float32).astype(kind).view(code).astype(u32)
        number = ~np.isnan(x)
        # These formats saturate in ml_dtypes as here; NaN has its own code in each library.
        assert (other[number] == codes[number]).all(), name
    return codes


def splitmix(state):
    """SplitMix64: an endless sequence of 64-bit words."""
    mask = (1 << 64) - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


SUMS = {  # name: (mantissa bits, exponent bits, bits, whether the top exponent is infinity or NaN)
    "f16": (10, 5, 16, True), "bf16": (7, 8, 16, True), "tf32": (10, 8, 19, True), "f32": (23, 8, 32, True),
    "e4m3": (3, 4, 8, False), "e5m2": (2, 5, 8, True),
}


def taken_apart(name, code):
    """(value, exponent), or (None, what it is)."""
    mantissa, exponents, bits, ieee = SUMS[name]
    negative, field, m = code >> (bits - 1), code >> mantissa & ((1 << exponents) - 1), code & ((1 << mantissa) - 1)
    top = (1 << exponents) - 1
    if field == top and (ieee or m == (1 << mantissa) - 1):
        return None, "nan" if m or not ieee else "-inf" if negative else "inf"
    e = max(field, 1) - (top >> 1)
    s = m + ((1 << mantissa) if field else 0)
    return Fraction(-s if negative else s) * Fraction(2) ** (e - mantissa), e


def code_of(name, value, nearest, keep):
    """The code of a fraction in f32 or f16; truncated to `keep` mantissa bits unless to the nearest."""
    mantissa, exponents, bits, _ = SUMS[name]
    bias, sign = (1 << (exponents - 1)) - 1, (1 << (bits - 1) if value < 0 else 0)
    if value == 0:
        return 0
    a = abs(value)
    e = a.numerator.bit_length() - a.denominator.bit_length()
    e -= a < Fraction(2) ** e
    e = max(e, 1 - bias)
    unit = Fraction(2) ** (e - mantissa)
    q, rest = divmod(a, unit)
    if nearest:
        q += rest * 2 > unit or (rest * 2 == unit and q % 2 == 1)
    else:
        q -= q % (1 << (mantissa - keep))
    if e > bias:
        q, e = 1 << (mantissa + 1), bias
    code = ((e - 1 + bias) << mantissa) + int(q)
    return sign | min(code, ((1 << exponents) - 1) << mantissa)


def added(names, a, b, c, model):
    """The code of Σ a·b + c. `model` is None for the exact sum, else (fraction bits, products at once, result bits)."""
    fa, fb, fc = names
    if model is not None and len(a) > model[1]:
        c = added(names, a[: model[1]], b[: model[1]], c, model)
        return added(names, a[model[1] :], b[model[1] :], c, model)
    nan, infinity = (0x7FFF, 0x7C00) if fc == "f16" else (0x7FFFFFFF, 0x7F800000)
    terms, special = [], set()
    for x, y in zip(a, b):
        (v, e), (w, f) = taken_apart(fa, x), taken_apart(fb, y)
        if v is None or w is None:
            kinds = {e if v is None else "zero" if v == 0 else "inf" if v > 0 else "-inf",
                     f if w is None else "zero" if w == 0 else "inf" if w > 0 else "-inf"}
            negative = len(kinds) == 2
            special.add("nan" if kinds & {"nan", "zero"} else "-inf" if negative else "inf")
        else:
            terms.append((v * w, e + f))
    v, e = taken_apart(fc, c)
    if v is None:
        special.add(e)
    else:
        terms.append((v, e))
    if "nan" in special or len(special) == 2:
        return nan
    if special:
        return infinity | ((1 << (SUMS[fc][2] - 1)) if "-inf" in special else 0)
    if model is None:
        return code_of(fc, sum(t for t, _ in terms), True, 0)
    top = max([e for t, e in terms if t != 0] + [-126])
    unit = Fraction(2) ** (top - model[0])
    total = sum(int(t / unit) for t, _ in terms) * unit     # int() truncates towards zero
    return code_of(fc, total, fc == "f16", model[2])


def drawn(words, name, kind):
    """A code: any bits, or (kinds 1 to 3) an exponent near that of 1, so that terms cancel and are aligned."""
    mantissa, exponents, bits, _ = SUMS[name]
    word = next(words)
    if kind == 0:
        return word & ((1 << bits) - 1)
    bias, m, negative = (1 << (exponents - 1)) - 1, word & ((1 << mantissa) - 1), word >> 40 & 1
    field = max(bias + (word >> 32) % (4 * kind + 1) - 2 * kind, 0)
    return negative << (bits - 1) | field << mantissa | m


def sums():
    models = {  # name: (formats of a, b and c, k, parameters by capability)
        "f16 f32": (("f16", "f16", "f32"), 16, {"80": (24, 8, 23), "90": (25, 16, 23)}),
        "f16 f16": (("f16", "f16", "f16"), 16, {"80": (24, 8, 23), "90": (25, 16, 23)}),
        "bf16 f32": (("bf16", "bf16", "f32"), 16, {"80": (24, 8, 23), "90": (25, 16, 23)}),
        "tf32 f32": (("tf32", "tf32", "f32"), 8, {"80": (24, 4, 23), "90": (25, 8, 23)}),
        "e4m3 e5m2 f32": (("e4m3", "e5m2", "f32"), 32, {"89": (13, 16, 13), "120": (25, 32, 23)}),
    }
    out = {}
    for at, (name, (names, k, parameters)) in enumerate(models.items()):
        words, results = splitmix(2026 + at), {"exact": []} | {p: [] for p in parameters}
        for case in range(CASES):
            # In a quarter of the cases, one code in twenty is of any bits, infinities and NaN too.
            kinds = lambda: 0 if case % 4 == 0 and next(words) % 20 == 0 else 1 + case % 3
            a = [drawn(words, names[0], kinds()) for _ in range(k)]
            b = [drawn(words, names[1], kinds()) for _ in range(k)]
            c = drawn(words, names[2], kinds())
            results["exact"].append(added(names, a, b, c, None))
            for p, model in parameters.items():
                results[p].append(added(names, a, b, c, model))
        out[name] = {p: {"sha256": sha(np.array(r, u32)), "first": [f"{x:08x}" for x in r[:12]]} for p, r in results.items()}
        differ = sum(x != y for x, y in zip(results["exact"], results[next(iter(parameters))]))
        print(name, "truncated differs from exact in", differ, "of", CASES)
    path = OUT.with_name("sums.json")
    path.write_text(json.dumps(out, indent=1) + "\n")
    print(path.name, path.stat().st_size, "bytes")


def main():
    sums()
    warnings.simplefilter("ignore")
    out = {"ml_dtypes": ml_dtypes.__version__, "numpy": np.__version__, "formats": {}}
    for name, (kind, code, largest, sign_bit, nan, _) in FORMATS.items():
        bits = values(name)
        every = np.arange(1 << (sign_bit + 1), dtype=u32)
        decoded = ((every << u32(13)) if kind is None else every.astype(code).view(kind).astype(np.float32).view(u32)).copy()
        decoded[np.isnan(decoded.view(np.float32))] = 0x7FFFFFFF
        entry = {"values": len(bits), "values_sha256": sha(bits), "decode_sha256": sha(decoded)}
        for mode in ["rn", "rna", "rz", "rp", "rm"]:
            entry[mode] = sha(convert(name, bits, mode))
        entry["rn.satfinite"] = sha(convert(name, bits, "rn", satfinite=True))
        entry["rn.relu"] = sha(convert(name, bits, "rn", relu=True))
        entry["rz.satfinite.relu"] = sha(convert(name, bits, "rz", satfinite=True, relu=True))
        out["formats"][name] = entry
        print(name, len(bits))
    scale = values("bf16")
    x = np.abs(scale.view(np.float32))
    kind = ml_dtypes.float8_e8m0fnu
    powers = np.arange(255, dtype=np.uint8).view(kind).astype(np.float64)
    up = np.searchsorted(powers, np.where(np.isnan(x), 0, x).astype(np.float64), side="left")
    down = np.searchsorted(powers, np.where(np.isnan(x), 0, x).astype(np.float64), side="right") - 1
    for mode, codes in [("rp", up), ("rz", down)]:
        codes = np.where(np.isnan(x), 255, np.clip(codes, 0, 254)).astype(np.uint8)
        out[f"ue8m0 {mode}"] = sha(codes)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(out, indent=1) + "\n")
    print(OUT.name, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
