#!/usr/bin/env python3
"""Trains a small net on the bundled digits in FP32 and under bf16 autocast with paired seeds, and writes the test logits.

    pip install torch numpy
    python examples/pytorch/fp32_bf16_pair.py logits
    halfstep verdict --baseline logits/fp32-*.npz --candidate logits/bf16-*.npz

A pair shares its seed: initial weights and order of batches. `save` is all that another training script needs.
"""
import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn

DIGITS = Path(__file__).resolve().parents[2] / "data/digits/digits.csv.gz"


def load():
    """Pixels scaled to 0..1 and labels; half of the 1,797 digits are for testing, always the same."""
    with gzip.open(DIGITS, "rt") as f:
        table = np.loadtxt(f, delimiter=",", dtype=np.float32)
    x, y = torch.tensor(table[:, :-1] / 16), torch.tensor(table[:, -1], dtype=torch.long)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test, train = order[: len(y) // 2], order[len(y) // 2 :]
    return x[train], y[train], x[test], y[test]


def train(x, y, seed, autocast, epochs):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(y)).split(64):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model


def save(path, logits, labels, seed, **groups):
    """What `halfstep verdict` reads: logits [N, C], labels [N], the seed, and group_* columns [N] if there are any."""
    np.savez(path, logits=logits.float().numpy(), labels=labels.numpy(), seed=seed,
             **{f"group_{name}": values for name, values in groups.items()})


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments = arguments.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)     # such small products are slower on more
    x, y, test_x, test_y = load()
    # Groups by something that is not the label: how much ink a digit has.
    ink = np.where(test_x.sum(1) > test_x.sum(1).median(), "dark", "light")
    for seed in range(arguments.seeds):
        for name, autocast in [("fp32", False), ("bf16", True)]:
            model = train(x, y, seed, autocast, arguments.epochs)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = model(test_x)
            save(arguments.out / f"{name}-{seed}.npz", logits, test_y, seed, ink=ink)
            print(f"{name} seed {seed}: accuracy {(logits.argmax(1) == test_y).float().mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
