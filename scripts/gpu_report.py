#!/usr/bin/env python3
"""What `scripts/gpu.sh` has measured, in one JSON file, and the tables of docs/gpu.md.

    scripts/gpu_report.py losses OUT           # compares the steps of both devices; exits with 1 if they differ
    scripts/gpu_report.py write OUT [NAME]     # writes OUT/gpu.json of the parts; exits with 1 if one has failed
    scripts/gpu_report.py docs OUT [FILE]      # the tables between the two marks of docs/gpu.md, of OUT/time.json
"""

import datetime
import json
import sys
from pathlib import Path

# The first steps differ by the order of sums alone: of 64 products and a mean of 32 samples in f32,
# through three layers and back, (64 + 32) · 6 · 2^-24 = 3.4e-5 of the loss; after each step the
# weights differ by as much again.
STEPS, BOUND = 10, 10 * (64 + 32) * 6 * 2.0**-24
DOCS = Path(__file__).parents[1] / "docs/gpu.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MODELS = {
    "mlp": "MLP 784-1024-1024-10, batch 256",
    "gpt": "GPT 6 × 384, batch 8 × 256",
    "resnet18": "ResNet-18, 32 × 32, batch 64",
    "gpt2": "GPT-2 124M, batch 8 × 1024",
}
PRECISIONS = ["fp32", "bf16", "fp16", "fp8"]


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
    """What a part has printed: JSON as such, lines of JSON as a list, else the last lines."""
    text = path.read_text() if path.is_file() else ""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text.splitlines()[-20:]


def write(out, name="gpu.json"):
    parts = [json.loads(line) for line in (out / "parts.jsonl").read_text().splitlines()]
    for part in parts:
        part["printed"] = content(out / (part["part"] + ".out"))
        # Tests that find no GPU are ignored, which is no failure to them.
        if part["part"] == "conformance" and "; 0 ignored;" not in "".join(map(str, part["printed"])):
            part["code"] = part["code"] or "nothing was tested"
        if part["part"] == "steps" and not any("median_ms" in line for line in part["printed"] if isinstance(line, dict)):
            part["code"] = part["code"] or "nothing was measured"
    written = {"date": datetime.date.today().isoformat(), "parts": parts}
    (out / name).write_text(json.dumps(written, indent=1) + "\n")
    return all(part["code"] == 0 for part in parts)


class Steps:
    """Measurements by who, model, precision and way."""

    def __init__(self, lines):
        lines = [line for line in lines if isinstance(line, dict)]
        self.lines = {(line["who"], line["model"], line["precision"], line["way"]): line for line in lines}

    def value(self, key, who, model, precision, *ways):
        """The least of some ways, or none."""
        lines = (self.lines.get((who, model, precision, way), {}) for way in ways)
        return min((line[key] for line in lines if key in line), default=None)

    def eager(self, key, model, precision):
        return self.value(key, "torch", model, precision, "eager", "eager, channels last")


def cell(value, text="{:.2f}"):
    return "not measured" if value is None else text.format(value)


def ratio(ours, theirs):
    return cell(None if None in (ours, theirs) else ours / theirs)


def times(steps):
    yield "| a step, ms | precision | Halfstep | PyTorch eager | compiled | with CUDA graphs | ours ÷ eager | ÷ compiled | ÷ graphs |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for model, name in MODELS.items():
        for precision in PRECISIONS if model != "gpt2" else ["bf16"]:
            ours = steps.value("median_ms", "halfstep", model, precision, "own")
            theirs = [steps.eager("median_ms", model, precision)]
            theirs += [steps.value("median_ms", "torch", model, precision, way) for way in ("compiled", "graphs")]
            if precision == "fp8":
                # Its autocast has none.
                yield f"| {name} | fp8 | {cell(ours)} |" + " – |" * 6
            else:
                cells = [*map(cell, [ours, *theirs]), *(ratio(ours, t) for t in theirs)]
                yield f"| {name} | {precision} | " + " | ".join(cells) + " |"


def memory(steps):
    yield "| memory of the GPU, MB, bf16 | Halfstep | PyTorch eager, allocated | reserved | with CUDA graphs, allocated | reserved |"
    yield "|---|--:|--:|--:|--:|--:|"
    for model, name in MODELS.items():
        values = [steps.value("device_bytes", "halfstep", model, "bf16", "own")]
        values += [steps.eager(key, model, "bf16") for key in ("allocated_bytes", "reserved_bytes")]
        values += [steps.value(key, "torch", model, "bf16", "graphs") for key in ("allocated_bytes", "reserved_bytes")]
        yield f"| {name} | " + " | ".join(cell(v and v / 1e6, "{:.0f}") for v in values) + " |"


def docs(out, file=DOCS):
    measured = json.loads((out / "time.json").read_text())
    part = {p["part"]: p["printed"] for p in measured["parts"]}
    steps, roofs = Steps(part.get("steps", [])), part.get("roofs")
    engines = {line["engine"] for line in steps.lines.values() if "engine" in line}
    peers = {line["peer"] for line in steps.lines.values() if "peer" in line}
    lines = [f"Measured on {measured['date']}: {', '.join(sorted(engines)) or 'no GPU'}; {', '.join(sorted(peers)) or 'PyTorch was not measured'}."]
    if isinstance(roofs, dict):
        lines[0] += (f" The same minutes a copy moved {roofs['copy_bytes_per_s'] / 1e12:.2f} TB/s, and a bf16 product of 8192³ by PyTorch "
                     f"reached {roofs['bf16_operations_per_s'] / 1e12:.0f} TFLOP/s.")
    text = "\n".join([BEGIN, *lines, "", *times(steps), "", *memory(steps), END])
    before, rest = Path(file).read_text().split(BEGIN)
    Path(file).write_text(before + text + rest.split(END)[1])
    return True


def main():
    commands = {"losses": differences, "write": write, "docs": docs}
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(0 if commands[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]) else 1)


if __name__ == "__main__":
    main()
