#!/usr/bin/env python3
"""Makes the golden files of crates/train/tests/golden: what PyTorch does with tiny models and with a loss scaler.

    pip install torch            # any recent release; CPU is enough
    python scripts/golden_torch.py

Each model file holds first weights, 50 batches, and for a run of AdamW in f64 and one in f32: losses and step-1
gradients; the weights of the f64 run after each step, as a sum of an f32 and a bf16; and how far the f32 run is from them, over the
weights that the loss depends on.
Weights are in Halfstep's layout: channels-last images, convolution kernels [O, KH, KW, C]. The scaler file holds the states
of torch.amp.GradScaler under a fixed pattern of overflows.
"""
import json, struct
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

OUT = Path(__file__).resolve().parent.parent / "crates/train/tests/golden"
STEPS, LR = 50, 2.0 ** -10   # a learning rate that f32 holds exactly
# ReLU and max pooling have kinks. A run that passes one closer than its rounding errors takes
# another way from there, and the distance says nothing of arithmetic. The first seed is used whose
# f64 run keeps this far from every kink.
MARGIN, margin = 1e-5, [float("inf")]


def relu(x):
    margin[0] = min(margin[0], x.detach().abs().min().item())
    return F.relu(x)


def max_pool(x):
    n, c, h, w = x.shape
    windows = x.detach().view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5).flatten(4)
    first, second = windows.topk(2).values.unbind(-1)
    gaps = (first - second)[first > 0]     # below zero the ReLU before it has cut the gradient
    margin[0] = min(margin[0], gaps.min().item())
    return F.max_pool2d(x, 2)


def write(path, tensors, metadata):
    """A safetensors file: the header's length, the header, the data."""
    names = {torch.float32: "F32", torch.float64: "F64", torch.int32: "I32", torch.int8: "I8", torch.bfloat16: "BF16"}
    header, data = {"__metadata__": metadata}, b""
    for name, t in tensors.items():
        raw = bytes(t.contiguous().flatten().view(torch.uint8).tolist())
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(path.name, path.stat().st_size, "bytes")


class Mlp(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == len(self.layers) - 1 else relu(layer(x))
        return x


class Cnn(nn.Module):
    def __init__(self, size, channels, hidden, classes):
        super().__init__()
        pairs = list(zip([1, *channels], channels))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        side = size >> len(channels)
        self.hidden, self.head = nn.Linear(side * side * channels[-1], hidden), nn.Linear(hidden, classes)

    def forward(self, x):                                  # [N, H, W, C]
        x = x.permute(0, 3, 1, 2)
        for conv in self.convs:
            x = max_pool(relu(conv(x)))
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.head(relu(self.hidden(x)))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.ln1, self.qkv, self.proj = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ln2, self.up, self.down, self.heads = nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d), heads

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (u.view(b, t, self.heads, -1).transpose(1, 2) for u in self.qkv(self.ln1(x)).split(d, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class Gpt(nn.Module):
    def __init__(self, vocab, length, width, layers, heads):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.ln = nn.LayerNorm(width)
        # 0.02 is meant for widths of hundreds: this gives a narrow net the activations of one of
        # width 384, so that attention is not uniform.
        std = 0.02 * (384 / width) ** 0.5
        for p in self.parameters():
            nn.init.normal_(p, std=std) if p.dim() > 1 else None

    def forward(self, i):
        return F.linear(self.ln(self.blocks(self.tok(i) + self.pos.weight[: i.shape[1]])), self.tok.weight)


def ours(t):
    """A weight or gradient in Halfstep's layout, as a row."""
    return (t.permute(0, 2, 3, 1) if t.dim() == 4 else t).detach().flatten()


def train(net, xs, ys, dtype):
    net = net.to(dtype)
    matrices = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LR)
    losses, weights, gradients, largest = [], [], None, 0
    for x, y in zip(xs, ys):
        optimiser.zero_grad()
        x = x.to(dtype) / 32 if x.dtype == torch.int8 else x
        logits = net(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.long())
        loss.backward()
        gradient = torch.cat([ours(p.grad) for p in net.parameters()])
        gradients = gradient if gradients is None else gradients
        largest = torch.maximum(gradient.abs(), torch.as_tensor(largest, dtype=dtype))
        optimiser.step()
        losses.append(loss.item())
        weights.append(torch.cat([ours(p) for p in net.parameters()]).double())
    return torch.tensor(losses, dtype=torch.float64), torch.stack(weights), gradients, largest


def golden(name, make, model, input, outputs, xs, ys):
    for seed in range(1, 100):
        torch.manual_seed(seed)
        net = make()
        names = [n for n, _ in net.named_parameters()]
        first = {n: p.detach().clone() for n, p in net.named_parameters()}
        initial = torch.cat([ours(p) for p in net.parameters()])
        margin[0] = float("inf")
        losses64, weights64, gradients64, largest = train(net, xs, ys, torch.float64)
        if margin[0] > MARGIN:
            break
    print(name, "seed", seed, "margin", margin[0])
    net = make()
    net.load_state_dict(first)
    losses32, weights32, gradients32, _ = train(net, xs, ys, torch.float32)
    high = weights64.float()
    low = (weights64 - high.double()).bfloat16()
    # The loss does not depend on some weights at all: attention's key bias, which softmax does not
    # see, and units that no sample turns on. AdamW makes steps of any size up to the learning rate
    # of the rounding noise in their gradients.
    counted = largest > 1e-12 * largest.max()
    distance = ((weights32 - weights64) * counted).norm(dim=1)
    metadata = {"model": json.dumps(model), "input": json.dumps(input), "outputs": str(outputs), "batch": str(len(xs[0])),
                "weights": json.dumps(names), "lr": repr(LR), "seed": str(seed), "torch": torch.__version__}
    write(OUT / f"{name}.safetensors",
          {"x": xs, "y": ys, "initial": initial, "f64.losses": losses64, "f64.gradients": gradients64,
           "f64.weights.high": high, "f64.weights.low": low, "f32.losses": losses32, "f32.gradients": gradients32,
           "counted": counted.to(torch.int8), "f32.distance": distance}, metadata)
    print("  counted", int(counted.sum()), "of", counted.numel(), "uncounted distance", ((weights32 - weights64) * ~counted).norm(dim=1)[-1].item())
    print("  loss", losses64[0].item(), "to", losses64[-1].item(), "f32 distance", distance[0].item(), distance[-1].item())


def scaler():
    """States of GradScaler; the pattern has long clean runs, single overflows and overflows in a row."""
    cases = []
    for init, growth, backoff, interval in [(65536.0, 2.0, 0.5, 4), (8.0, 2.0, 0.5, 1), (1024.0, 4.0, 0.25, 3)]:
        state = torch.amp.GradScaler("cpu", init_scale=init, growth_factor=growth, backoff_factor=backoff, growth_interval=interval)
        generator = torch.Generator().manual_seed(int(init))
        overflows = (torch.rand(120, generator=generator) < 0.15).tolist()
        overflows[40:46] = [True] * 6
        overflows[60:75] = [False] * 15
        p = nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.SGD([p], lr=0.0)
        scales, tracker = [], []
        for overflow in overflows:
            optimiser.zero_grad()
            state.scale(p.sum() * (float("inf") if overflow else 1.0)).backward()
            state.step(optimiser)
            state.update()
            scales.append(state.get_scale())
            tracker.append(state._get_growth_tracker())
        cases.append({"init": init, "growth": growth, "backoff": backoff, "interval": interval,
                      "overflows": overflows, "scales": scales, "clean": tracker})
    (OUT / "scaler.json").write_text(json.dumps({"torch": torch.__version__, "cases": cases}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(7)
    integers = lambda low, high, *shape, dtype=torch.int32: torch.randint(low, high, shape, generator=draw).to(dtype)
    golden("mlp", lambda: Mlp([12, 16, 9, 4]), {"kind": "mlp", "hidden": [16, 9]}, {"kind": "features", "width": 12}, 4,
           integers(-64, 65, STEPS, 8, 12, dtype=torch.int8), integers(0, 4, STEPS, 8))
    golden("cnn", lambda: Cnn(8, [3, 4], 10, 5), {"kind": "cnn", "channels": [3, 4], "hidden": 10},
           {"kind": "image", "height": 8, "width": 8, "channels": 1}, 5,
           integers(-64, 65, STEPS, 6, 8, 8, 1, dtype=torch.int8), integers(0, 5, STEPS, 6))
    golden("gpt", lambda: Gpt(11, 6, 8, 2, 2), {"kind": "gpt", "width": 8, "layers": 2, "heads": 2},
           {"kind": "tokens", "length": 6, "vocab": 11}, 11, integers(0, 11, STEPS, 4, 6), integers(0, 11, STEPS, 24))
    scaler()
