#!/usr/bin/env python3
"""Training steps of two builds of Halfstep in alternation, to see what a change costs.

    python scripts/beside_build.py OLD NEW [--pairs 12] [--isa avx2,avx512-bf16]

OLD and NEW are two `halfstep` binaries. For each instruction set, model and precision it runs pairs of
`halfstep bench step`, each measurement a process of its own, the order within a pair alternating, and
prints the median of the ratios NEW ÷ OLD of the median step times with its 95 % interval: the order
statistics between which the median lies with at least that probability (binomial, any distribution).
Peak resident memory and the planned arena are compared too. Without `--isa` the best instruction set
of the machine is used. Quiet machines only: anything else that runs makes the interval wide.
"""
import argparse, json, math, os, statistics, subprocess


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old")
    p.add_argument("new")
    p.add_argument("--pairs", type=int, default=12)
    p.add_argument("--models", default="mlp,gpt,resnet18")
    p.add_argument("--precisions", default="fp32,bf16")
    p.add_argument("--isa", default="", help="comma-separated values of HALFSTEP_ISA")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--seconds", type=float, help="of each measurement; by default 1.5 for the mlp, 3 for the others")
    p.add_argument("--json", action="store_true")
    return p.parse_args()


def measure(binary, isa, model, precision, a):
    seconds = a.seconds or {"mlp": 1.5}.get(model, 3.0)
    command = [binary, "bench", "step", "--model", model, "--precision", precision, "--threads", str(a.threads),
               "--seconds", str(seconds), "--json"]
    env = dict(os.environ, **({"HALFSTEP_ISA": isa} if isa else {}))
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def interval(ratios):
    """Order statistics around the median that hold it with probability >= 0.95; the extremes where pairs are few."""
    n, x = len(ratios), sorted(ratios)
    below = lambda k: sum(math.comb(n, i) for i in range(k)) / 2**n
    k = max((k for k in range(1, n // 2 + 1) if 2 * below(k) <= 0.05), default=1)
    return x[k - 1], x[n - k]


def main():
    a = options()
    rows = []
    for isa in a.isa.split(","):
        for model in a.models.split(","):
            for precision in a.precisions.split(","):
                pairs = []
                for i in range(a.pairs):
                    order = [("old", a.old), ("new", a.new)][:: 1 if i % 2 == 0 else -1]
                    pairs.append({name: measure(binary, isa, model, precision, a) for name, binary in order})
                ratios = [p["new"]["median_ms"] / p["old"]["median_ms"] for p in pairs]
                low, high = interval(ratios)
                of = lambda side, key: statistics.median(p[side][key] for p in pairs)
                row = dict(engine=pairs[0]["new"]["engine"], model=model, precision=precision, pairs=a.pairs,
                           old_ms=of("old", "median_ms"), new_ms=of("new", "median_ms"),
                           ratio=statistics.median(ratios), low=low, high=high,
                           rss_ratio=of("new", "peak_rss_bytes") / of("old", "peak_rss_bytes"),
                           arena_ratio=of("new", "arena_bytes") / of("old", "arena_bytes"))
                rows.append(row)
                if not a.json:
                    print("{engine:<30} {model:<9} {precision:<6} {old_ms:8.2f} → {new_ms:8.2f} ms   {ratio:.3f} "
                          "[{low:.3f}, {high:.3f}]   memory {rss_ratio:.3f}, arena {arena_ratio:.3f}".format(**row), flush=True)
    if a.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
