#!/usr/bin/env python3
"""Writes what is predicted of steps on an H100 between the two marks of docs/gpu.md: some minutes.

    scripts/gpu_predict.py [PROGRAM]     # the example `predict` of halfstep-gpu, which is built without one

Kernels that take less than a fiftieth of their step are left out of the tables.
"""
import os, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- predicted: begin -->", "<!-- predicted: end -->"
MODELS = ["mlp", "gpt", "resnet18"]


def main():
    environment = {**os.environ}
    for variable, script in [("HALFSTEP_NVRTC", "fetch_nvrtc.sh"), ("HALFSTEP_PTXAS", "fetch_ptxas.sh")]:
        if variable not in environment:
            environment[variable] = subprocess.check_output([ROOT / "scripts" / script], text=True).strip()
    build = ["cargo", "run", "--release", "-q", "-p", "halfstep-gpu", "--features", "simulator", "--example", "predict", "--"]
    program = sys.argv[1:2] or build
    summary, tables = [], []
    for model in MODELS:
        printed = subprocess.check_output([*program, "h100", model, "bf16"], text=True, env=environment, cwd=ROOT)
        table, last = printed.strip().split("\n\n")
        commands, total, critical = re.search(r"(\d+) commands, predicted ([\d.]+) ms .* ([\d.]+) ms", last).groups()
        summary.append(f"| {model} | {commands} | {total} | {critical} |")
        head, rows = table.splitlines()[:2], table.splitlines()[2:]
        least = float(total) * 1e3 / 50
        rows = [row for row in rows if float(row.split("|")[-2]) >= least]
        tables.append("\n".join([f"Of {model}, the kernels that take a fiftieth of the step or more:", "", *head, *rows]))
    text = "\n".join(["**Predicted**, not measured: a bf16 step on an H100, in milliseconds.", "",
                      "| | commands | one after another | on the critical path |", "|---|--:|--:|--:|", *summary])
    file = ROOT / "docs/gpu.md"
    before, rest = file.read_text().split(BEGIN)
    file.write_text("\n".join([before + BEGIN, text, "", "\n\n".join(tables), END]) + rest.split(END)[1])


if __name__ == "__main__":
    main()
