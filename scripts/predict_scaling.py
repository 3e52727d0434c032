#!/usr/bin/env python3
"""Predicts the step time of N ranks from measured ones: a model, not a measurement (docs/scale-out.md has its assumptions).

    scripts/predict_scaling.py --step 430 --backward 0.62 --bytes 12.9e6 --buckets 12 --alpha 2e-6 --rate 10e9
"""

import argparse

p = argparse.ArgumentParser()
p.add_argument("--step", type=float, required=True, help="ms of a step of one rank with its own part of the batch")
p.add_argument("--backward", type=float, default=0.62, help="share of the step between the first sum's begin and the update")
p.add_argument("--bytes", type=float, required=True, help="bytes of gradients")
p.add_argument("--buckets", type=int, required=True, help="sums that gradients travel in")
p.add_argument("--waits", type=int, default=1, help="short sums that the step waits for: three for each batch norm")
p.add_argument("--short", type=float, default=512, help="bytes of each of those")
p.add_argument("--alpha", type=float, default=2e-6, help="seconds from one rank to another, whatever the size")
p.add_argument("--rate", type=float, default=10e9, help="bytes per second of one rank's link")
p.add_argument("--add", type=float, default=4e9, help="bytes per second that a rank adds up")
a = p.parse_args()


def long_sum(n, ranks):
    """Alltoall by pairs, then allgather around the ring: as many steps and bytes as a ring all-reduce."""
    return 2 * (ranks - 1) * a.alpha + 2 * (ranks - 1) / ranks * n / a.rate + n * (ranks - 1) / ranks / a.add


def short_sum(n, ranks):
    """Allgather by doubling, all of it to everyone."""
    steps = (ranks - 1).bit_length()
    return steps * a.alpha + (ranks - 1) * n * (1 / a.rate + 1 / a.add)


print("| ranks | sums, ms | of it beside the backward pass | step, ms | efficiency |\n|---|---|---|---|---|")
for ranks in (1, 2, 8, 64, 512):
    beside = a.buckets * long_sum(a.bytes / a.buckets, ranks) * 1e3 if ranks > 1 else 0
    waits = a.waits * min(short_sum(a.short, ranks), long_sum(a.short, ranks)) * 1e3 if ranks > 1 else 0
    # The last bucket is full when the backward pass ends: nothing is left to hide it behind.
    last = beside / a.buckets
    hidden = min(beside - last, a.step * a.backward)
    step = a.step + waits + beside - hidden
    print(f"| {ranks} | {beside + waits:.1f} | {hidden:.1f} | {step:.1f} | {a.step / step:.0%} |")
