#!/usr/bin/env python3
"""Training steps of Halfstep and PyTorch side by side on the CPU, in alternation, each measurement a process of its own.

    cargo build --release && pip install torch
    python scripts/beside_torch.py --models gpt,mlp --precisions fp32,bf16 --pairs 3 --seconds 8 [-- --width 768 …]

Both sides run the models of `halfstep bench step`, AdamW included, on a fixed random batch. Time is PyTorch's better of
eager and compiled with its memory kept between steps (glibc gives freed memory back after each step unless told
otherwise, and fresh pages are slow); memory is PyTorch's smaller peak with its default allocator. What follows `--` goes
to both sides. Prints a table of medians with their spread, and with --json every measurement.
"""
import argparse, json, os, resource, statistics, subprocess, sys, time

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
DEFAULTS = {"mlp": dict(batch=256), "resnet18": dict(batch=64, width=64),
            "gpt": dict(batch=8, width=384, layers=6, heads=6, seq=256, vocab=256)}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="mlp,resnet18,gpt")
    p.add_argument("--precisions", default="fp32,bf16,fp16")
    p.add_argument("--peer-precision", help="what PyTorch runs, in place of the same precision")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--seconds", type=float, default=8.0)
    p.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it needs a C++ compiler)")
    p.add_argument("--halfstep", default="target/release/halfstep")
    p.add_argument("--json", action="store_true")
    p.add_argument("--peer-step", metavar="MODEL", help=argparse.SUPPRESS)
    p.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    for size in ("batch", "width", "layers", "heads", "seq", "vocab"):
        p.add_argument("--" + size, type=int)
    return p.parse_args([x for x in sys.argv[1:] if x != "--"])


def peer_step(a):
    """One process of the peer: what `halfstep bench step` does, in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, bias=False)
            norm = nn.BatchNorm2d
            self.body = nn.Sequential(conv(cin, cout, 3, stride), norm(cout), nn.ReLU(), conv(cout, cout, 3, 1), norm(cout))
            self.skip = nn.Identity() if cin == cout else nn.Sequential(conv(cin, cout, 1, stride), norm(cout))

        def forward(self, x):
            return F.relu(self.body(x) + self.skip(x))

    class Block(nn.Module):
        def __init__(self, d, heads):
            super().__init__()
            self.heads, self.ln1, self.ln2 = heads, nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            b, t, d = x.shape
            q, k, v = (u.view(b, t, self.heads, -1).transpose(1, 2) for u in self.qkv(self.ln1(x)).split(d, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
            return x + self.mlp(self.ln2(x))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok, self.pos = nn.Embedding(a.vocab, a.width), nn.Embedding(a.seq, a.width)
            self.blocks = nn.Sequential(*(Block(a.width, a.heads) for _ in range(a.layers)), nn.LayerNorm(a.width))
            self.head = nn.Linear(a.width, a.vocab, bias=False)
            for p in self.parameters():
                nn.init.normal_(p, std=0.02) if p.dim() > 1 else None
            self.head.weight = self.tok.weight

        def forward(self, i):
            return self.head(self.blocks(self.tok(i) + self.pos.weight)).flatten(0, 1)

    def resnet():
        w, channels = a.width, [a.width << s for s in range(4)]
        stem = [nn.Conv2d(3, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()]
        pairs = zip([w, *channels], channels)
        stages = [b for i, o in pairs for b in (Residual(i, o, 1 if i == o else 2), Residual(o, o, 1))]
        return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * w, 10))

    for key, value in DEFAULTS[a.peer_step].items():
        if getattr(a, key) is None:
            setattr(a, key, value)
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    if a.peer_step == "mlp":
        net = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
        x, y = torch.randn(a.batch, 784), torch.randint(10, (a.batch,))
    elif a.peer_step == "resnet18":
        net, last = resnet(), torch.channels_last
        net, x, y = net.to(memory_format=last), torch.randn(a.batch, 3, 32, 32).to(memory_format=last), torch.randint(10, (a.batch,))
    else:
        net, x = Gpt(), torch.randint(a.vocab, (a.batch, a.seq))
        y = torch.randint(a.vocab, (a.batch * a.seq,))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=a.precisions == "fp16")
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(a.precisions)
    forward = torch.compile(net) if a.compile else net

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=low, enabled=low is not None):
            loss = F.cross_entropy(forward(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()

    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + a.seconds
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e3)
    print(json.dumps({"peer": "torch " + torch.__version__, "median_ms": statistics.median(times),
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main(a):
    sizes = [w for k in ("batch", "width", "layers", "heads", "seq", "vocab") if getattr(a, k) for w in ("--" + k, str(getattr(a, k)))]
    common = ["--threads", str(a.threads), "--seconds", str(a.seconds), *sizes]

    def told(command, environment=None):
        out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
        if out.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{out.stderr.strip()[-2000:]}")
        return json.loads(out.stdout.strip().splitlines()[-1])

    everything = []
    for model in a.models.split(","):
        for precision in a.precisions.split(","):
            peer = [sys.executable, __file__, "--peer-step", model, "--precisions", a.peer_precision or precision, *common]
            ways = {"eager": (peer, KEEP), "default allocator": (peer, {})}
            if not a.no_compile:
                ways["compiled"] = (peer + ["--compile"], KEEP)
            ours = [a.halfstep, "bench", "step", "--json", "--model", model, "--precision", precision, *common]
            rounds = []
            for _ in range(a.pairs):
                pair = {"load": os.getloadavg()[0], "halfstep": told(ours)}
                pair.update({way: told(*how) for way, how in ways.items()})
                rounds.append(pair)
            column = lambda way, key: [r[way][key] for r in rounds]
            median = lambda way, key="median_ms": statistics.median(column(way, key))
            best = min((w for w in ways if w != "default allocator"), key=median)
            spread = lambda way: "{:.4g} ({:.4g}–{:.4g})".format(
                median(way), min(column(way, "median_ms")), max(column(way, "median_ms")))
            smallest = min(median(w, "peak_rss_bytes") for w in ways)
            print(f"{model} {precision}: Halfstep {spread('halfstep')} ms, {rounds[0]['eager']['peer']} {best} {spread(best)} ms; "
                  f"time ratio {median('halfstep') / median(best):.2f}; memory {median('halfstep', 'peak_rss_bytes') / 1e6:.0f} MB "
                  f"of {smallest / 1e6:.0f} MB, ratio {median('halfstep', 'peak_rss_bytes') / smallest:.2f}", file=sys.stderr if a.json else sys.stdout)
            everything.append({"model": model, "precision": precision, "sizes": sizes, "rounds": rounds})
    if a.json:
        print(json.dumps(everything))


if __name__ == "__main__":
    arguments = options()
    peer_step(arguments) if arguments.peer_step else main(arguments)
