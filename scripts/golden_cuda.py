#!/usr/bin/env python3
"""Makes crates/gpu/src/cuda/signatures.txt: what NVIDIA's headers say of the functions that are declared by hand.

    scripts/golden_cuda.py CUDARC      # the unpacked source of the crate cudarc

The crate's bindings are generated from the headers by bindgen. For each function of the driver and of NVRTC that
`crates/gpu/src/cuda` declares, the file has a line: its name, the class of each argument, and that of the result. A class is `p`, a
pointer; `4`, `8` or `1`, an integer, enumeration or handle of so many bytes; `f`, a float.
"""

import re
import sys
from pathlib import Path

CUDA = Path(__file__).resolve().parent.parent / "crates/gpu/src/cuda"
NUMBERS = {
    "c_int": "4", "c_uint": "4", "c_uchar": "1", "c_ulonglong": "8", "usize": "8", "f32": "f",
    "CUdevice": "4", "CUdeviceptr": "8",
}


def class_of(kind, text):
    kind = kind.strip().removeprefix("::core::ffi::")
    if kind.startswith("*"):
        return "p"
    if kind in NUMBERS:
        return NUMBERS[kind]
    if re.search(r"pub type %s = \*mut" % kind, text):
        return "p"
    if re.search(r"pub enum %s\b" % kind, text):
        return "4"
    alias = re.search(r"pub (?:type %s =|use self::) ([\w:]+)(?: as %s)?;" % (kind, kind), text)
    if alias:
        return class_of(alias.group(1).split("::")[-1], text)
    other = re.search(r"pub use self::(\w+) as %s;" % kind, text)
    return class_of(other.group(1), text) if other else sys.exit("unknown type: " + kind)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = []
    for ours, theirs in [("calls.rs", "driver"), ("nvrtc.rs", "nvrtc")]:
        text = (Path(sys.argv[1]) / "src" / theirs / "sys/mod.rs").read_text()
        for name in re.findall(r"\bfn ((?:cu|nvrtc)[A-Z]\w*)\(", (CUDA / ours).read_text()):
            found = re.search(r"pub unsafe fn %s\(([^()]*)\) -> ([^{]+)\{" % name, text, re.S)
            if not found:
                sys.exit("not in the bindings: " + name)
            arguments = [a.split(":", 1)[1] for a in re.split(r",\s*(?=\w+:)", found.group(1).strip().rstrip(",")) if a]
            classes = "".join(class_of(a, text) for a in arguments)
            lines.append("%s %s %s" % (name, classes or "-", class_of(found.group(2), text)))
    (CUDA / "signatures.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
