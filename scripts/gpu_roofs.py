#!/usr/bin/env python3
"""What this machine's GPU reaches by PyTorch: bytes copied in a second, and operations of a large bf16 product.

    scripts/gpu_roofs.py     # needs a GPU and torch
"""
import json, time
import torch

BYTES, SIZE = 1 << 30, 8192


def seconds(once, times=20):
    """The least time of some."""
    least = float("inf")
    for _ in range(times):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        once()
        torch.cuda.synchronize()
        least = min(least, time.perf_counter() - begin)
    return least


a, b = torch.empty(BYTES, dtype=torch.uint8, device="cuda"), torch.zeros(BYTES, dtype=torch.uint8, device="cuda")
x, y = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
z = torch.empty_like(x)
print(json.dumps({
    "gpu": torch.cuda.get_device_name(),
    "copy_bytes_per_s": 2 * BYTES / seconds(lambda: a.copy_(b)),
    "bf16_operations_per_s": 2 * SIZE**3 / seconds(lambda: torch.matmul(x, y, out=z)),
}))
