#!/usr/bin/env python3
"""Makes the PTX of crates/ptx/tests/kernels: compiles each .cu there with NVRTC, plain and with its planted faults.

    scripts/fetch_nvrtc.sh target/nvrtc
    python scripts/make_ptx.py target/nvrtc [--check]

Needs neither a GPU nor a driver. NVRTC is NVIDIA's, under its licence; its output is what is committed, so that tests need
no NVRTC. With --check nothing is written: the script ends with 1 if a file is not what NVRTC makes of its source.
"""
import argparse, ctypes, re, sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "crates/ptx/tests/kernels"
# Source: (architecture, defines). The file of a variant is named after source and define.
VARIANTS = {
    "softmax": ("compute_80", ["", "NO_BARRIER", "ABSENT_LANES", "UNINITIALISED", "DIVERGENT_BARRIER"]),
    "layer_norm": ("compute_80", ["", "MISALIGNED"]),
    "gelu": ("compute_80", ["", "ONE_TOO_MANY"]),
    "gemm_simt": ("compute_80", ["", "UNGUARDED", "NO_SECOND_BARRIER"]),
    "gemm_mma": ("compute_80", ["", "F16", "TF32", "UNGUARDED", "SHORT_WAIT", "NO_WAIT", "NO_BARRIER"]),
    "gemm_mma:89": ("compute_89", ["E4M3"]),
    "transposed": ("compute_90", [""]),
    "histogram": ("compute_80", ["", "PLAIN_SHARED", "PLAIN_GLOBAL"]),
    "split_k": ("compute_80", ["", "RACE_BETWEEN_BLOCKS", "NO_FENCE"]),
    "bulk_copy": ("compute_90", ["", "NO_PROXY_FENCE", "NO_WAIT", "OVERWRITE"]),
    "gemm_wgmma": ("compute_90a", ["", "TF32", "E4M3", "ACROSS", "WRONG_BYTES", "EARLY_RELEASE", "NO_FULL_WAIT", "NO_EMPTY_WAIT", "WRONG_PHASE", "NO_PROXY_FENCE",
                                   "NO_WGMMA_FENCE", "NO_WGMMA_WAIT"]),
}


def load(folder):
    find = lambda name: str(next(Path(folder).resolve().rglob(name)))
    ctypes.CDLL(find("libnvrtc-builtins.so.*"))  # found by its name afterwards
    return ctypes.CDLL(find("libnvrtc.so.*"))


def compiled(nvrtc, source, architecture, define):
    program = ctypes.c_void_p()
    headers = (ctypes.c_char_p * 1)((KERNELS / "common.cuh").read_bytes())
    names = (ctypes.c_char_p * 1)(b"common.cuh")
    text = (KERNELS / f"{source}.cu").read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, f"{source}.cu".encode(), 1, headers, names)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "-default-device"] + ([f"-D{define}"] if define else [])
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*[o.encode() for o in options]))
    size = ctypes.c_size_t()
    if code:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        sys.exit(f"{source} {define}: {log.value.decode()}")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    # Comments name the build of the compiler, and blank lines are many.
    lines = [re.sub(r"\s*//.*", "", line).rstrip() for line in ptx.value.decode().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nvrtc", help="the folder of the unpacked wheel")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    nvrtc, differ, size = load(options.nvrtc), [], 0
    for key, (architecture, defines) in VARIANTS.items():
        source = key.split(":")[0]
        for define in defines:
            text = compiled(nvrtc, source, architecture, define)
            path = KERNELS / (f"{source}.{define.lower()}.ptx" if define else f"{source}.ptx")
            size += len(text)
            if options.check:
                if not path.exists() or path.read_text() != text:
                    differ.append(path.name)
            else:
                path.write_text(text)
                print(path.name, architecture, len(text))
    if differ:
        sys.exit(f"not what NVRTC makes of their sources: {', '.join(differ)}")
    print(size, "bytes")


if __name__ == "__main__":
    main()
