#!/usr/bin/env python3
"""Training steps of Halfstep and PyTorch side by side, each measurement a process of its own.

    cargo build --release && pip install torch
    python scripts/beside_torch.py --models gpt,mlp --precisions fp32,bf16 --pairs 3 --seconds 8 [-- --width 768 …]
    python scripts/beside_torch.py --device cuda --seconds 2 --deadline 330

Both sides run the models of `halfstep bench step`, AdamW included, on a fixed random batch. Time is PyTorch's better of
eager and compiled with its memory kept between steps (glibc gives freed memory back after each step unless told
otherwise, and fresh pages are slow); memory is PyTorch's smaller peak with its default allocator. What follows `--` goes
to both sides. On the CPU both alternate. Prints a table of medians with their spread, and with --json every measurement.

On a GPU each step is waited for. All of ours come first, then PyTorch's, those that matter most first: eager AMP,
torch.compile, and torch.compile with CUDA graphs (`reduce-overhead`), images in the order that was faster eagerly; and
GPT-2 124M, 8 × 1024 tokens (`gpt2`). Each is a line of JSON as soon as it is measured; after --deadline seconds none is begun.
"""
import argparse, json, os, resource, statistics, subprocess, sys, time

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
DEFAULTS = {"mlp": dict(batch=256), "resnet18": dict(batch=64, width=64),
            "gpt": dict(batch=8, width=384, layers=6, heads=6, seq=256, vocab=256)}
GPT2 = dict(batch=8, width=768, layers=12, heads=12, seq=1024, vocab=50304)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--deadline", type=float, default=330.0, help="seconds, on a GPU")
    p.add_argument("--models", help="on the CPU mlp,resnet18,gpt, on a GPU gpt2 too")
    p.add_argument("--precisions", help="fp32,bf16,fp16, on a GPU our fp8 too")
    p.add_argument("--peer-precision", help="what PyTorch runs, in place of the same precision")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--seconds", type=float, default=8.0)
    p.add_argument("--no-compile", action="store_true", help="leave torch.compile out (it needs a C++ compiler)")
    p.add_argument("--halfstep", default="target/release/halfstep")
    p.add_argument("--json", action="store_true")
    p.add_argument("--peer-step", metavar="MODEL", help=argparse.SUPPRESS)
    p.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--mode", help=argparse.SUPPRESS)
    p.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    for size in ("batch", "width", "layers", "heads", "seq", "vocab"):
        p.add_argument("--" + size, type=int)
    a = p.parse_args([x for x in sys.argv[1:] if x != "--"])
    gpu = a.device == "cuda"
    a.models = a.models or ("mlp,gpt,resnet18,gpt2" if gpu else "mlp,resnet18,gpt")
    a.precisions = a.precisions or ("bf16,fp32,fp16,fp8" if gpu else "fp32,bf16,fp16")
    return a


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
    gpu = a.device == "cuda"
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    if a.peer_step == "mlp":
        net = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
        x, y = torch.randn(a.batch, 784), torch.randint(10, (a.batch,))
    elif a.peer_step == "resnet18":
        order = torch.channels_last if a.channels_last or not gpu else torch.contiguous_format
        net, x, y = resnet().to(memory_format=order), torch.randn(a.batch, 3, 32, 32).to(memory_format=order), torch.randint(10, (a.batch,))
    else:
        net, x = Gpt(), torch.randint(a.vocab, (a.batch, a.seq))
        y = torch.randint(a.vocab, (a.batch * a.seq,))
    net, x, y = net.to(a.device), x.to(a.device), y.to(a.device)
    torch.backends.cudnn.benchmark = True
    # f32 is exact on both sides.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(a.device, enabled=a.precisions == "fp16")
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(a.precisions)
    forward = torch.compile(net, mode=a.mode) if a.compile else net
    wait = torch.cuda.synchronize if gpu else lambda: None

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(a.device, dtype=low, enabled=low is not None):
            loss = F.cross_entropy(forward(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        wait()

    for _ in range(20 if gpu else 3):
        step()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    times, end = [], time.perf_counter() + a.seconds
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e3)
    held = {"on": torch.cuda.get_device_name(), "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved()} if gpu else {}
    print(json.dumps({"peer": "torch " + torch.__version__, "median_ms": statistics.median(times), **held,
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def on_gpu(a):
    """Each measurement as a line: who, model, precision, way, and what was measured or why not."""
    begin, models, precisions = time.monotonic(), a.models.split(","), a.precisions.split(",")
    # Why no peer can be measured.
    absent = None

    def measured(who, model, precision, way, command):
        nonlocal absent
        left, result = a.deadline - (time.monotonic() - begin), {}
        line = {"who": who, "model": model, "precision": precision, "way": way}
        if who == "torch" and absent:
            line["not_measured"] = absent
        elif left < 5:
            line["not_measured"] = "no time was left"
        else:
            try:
                ran = subprocess.run(command, capture_output=True, text=True, timeout=min(left, 150))
                if ran.returncode:
                    line["not_measured"] = " ".join(ran.stderr.split())[-300:] or f"exit code {ran.returncode}"
                    absent = line["not_measured"] if "No module named" in ran.stderr or "NVIDIA driver" in ran.stderr else absent
                else:
                    result = json.loads(ran.stdout.strip().splitlines()[-1])
            except subprocess.TimeoutExpired:
                line["not_measured"] = "it took too long"
            except ValueError:
                line["not_measured"] = "what it printed is no JSON"
        print(json.dumps({**result, **line}), flush=True)
        return result.get("median_ms", float("inf"))

    def sizes(model):
        given = GPT2 if model == "gpt2" else {k: getattr(a, k) for k in GPT2 if getattr(a, k)}
        return ["--seconds", str(a.seconds), *(w for k, v in given.items() for w in ("--" + k, str(v)))]

    kind = lambda model: "gpt" if model == "gpt2" else model
    for model in models:
        for precision in precisions if model != "gpt2" else ["bf16"]:
            measured("halfstep", model, precision, "own", [a.halfstep, "bench", "step", "--device", "cuda", "--json", "--groups", "1000",
                     "--model", kind(model), "--precision", precision, *sizes(model)])
    ordered = [(m, p) for p in ["bf16", "fp16", "fp32"] if p in precisions for m in models if m != "gpt2" or p == "bf16"]
    for model, precision in ordered:
        peer = [sys.executable, __file__, "--device", "cuda", "--peer-step", kind(model), "--precisions", precision, *sizes(model)]
        layout = []
        plain = measured("torch", model, precision, "eager", peer)
        if model == "resnet18" and measured("torch", model, precision, "eager, channels last", peer + ["--channels-last"]) < plain:
            layout = ["--channels-last"]
        # The others are no goal, and compiling takes a minute.
        if precision == "bf16" and not a.no_compile:
            measured("torch", model, precision, "compiled", peer + layout + ["--compile"])
            measured("torch", model, precision, "graphs", peer + layout + ["--compile", "--mode", "reduce-overhead"])


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
    if arguments.peer_step:
        peer_step(arguments)
    else:
        on_gpu(arguments) if arguments.device == "cuda" else main(arguments)
