#!/usr/bin/env python3
"""What `scripts/gpu.sh check` has measured, in one JSON file.

    scripts/gpu_report.py losses OUT   # compares the steps of both devices; exits with 1 if they differ
    scripts/gpu_report.py write OUT    # writes OUT/gpu.json of the parts; exits with 1 if one has failed
"""

import json
import sys
from pathlib import Path

# The first steps differ by the order of sums alone: of 64 products and a mean of 32 samples in f32,
# through three layers and back, (64 + 32) · 6 · 2^-24 = 3.4e-5 of the loss; after each step the
# weights differ by as much again.
STEPS, BOUND = 10, 10 * (64 + 32) * 6 * 2.0**-24


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["event"] == "step"]


def differences(out):
    gpu, cpu = losses(out / "run-cuda"), losses(out / "run-cpu")
    each = [abs(a - b) / abs(b) for a, b in zip(gpu, cpu)]
    first = max(each[:STEPS], default=float("inf"))
    print(json.dumps({
        "steps": [len(gpu), len(cpu)],
        "relative_difference_first": first,
        "bound": BOUND,
        "relative_difference_largest": max(each, default=None),
        "last": [gpu[-1:], cpu[-1:]],
    }))
    return len(gpu) == len(cpu) and first <= BOUND


def content(path):
    """What a part has printed: JSON as such, else the last lines."""
    text = path.read_text() if path.is_file() else ""
    try:
        return json.loads(text)
    except ValueError:
        return text.splitlines()[-20:]


def write(out):
    parts = [json.loads(line) for line in (out / "parts.jsonl").read_text().splitlines()]
    for part in parts:
        part["printed"] = content(out / (part["part"] + ".out"))
        # Tests that find no GPU are ignored, which is no failure to them.
        if part["part"] == "conformance" and "; 0 ignored;" not in "".join(map(str, part["printed"])):
            part["code"] = part["code"] or "nothing was tested"
    (out / "gpu.json").write_text(json.dumps({"parts": parts}, indent=1) + "\n")
    return all(part["code"] == 0 for part in parts)


def main():
    commands = {"losses": differences, "write": write}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(0 if commands[sys.argv[1]](Path(sys.argv[2])) else 1)


if __name__ == "__main__":
    main()
