#!/usr/bin/env python3
"""Measures the same file of logits with `halfstep verdict` and with torchmetrics, and prints times, peak memory and the ratio.

    cargo build --release
    python scripts/beside_torchmetrics.py [--samples 1000000] [--classes 1000] [--file logits.safetensors] [--threads 2]

The file (safetensors, f32: 4 GB by default) is made if it is not there, and left for the next run. Both read it in batches, each in
a process of its own, one after the other, with as many threads. torchmetrics computes accuracy, top-5, calibration error (15 bins,
l1), the loss and the Brier score, streamed. `halfstep verdict` is given the file as baseline and as candidate, so it reads it twice
and measures both, and besides flips, KL, moments for the bootstrap, the debiased error and the temperature.
"""
import argparse, json, os, resource, struct, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(path, samples, classes):
    import numpy as np
    rng = np.random.default_rng(7)
    labels = rng.integers(classes, size=samples)
    tensors = {"logits": {"dtype": "F32", "shape": [samples, classes], "data_offsets": [0, 4 * samples * classes]},
               "labels": {"dtype": "I64", "shape": [samples],
                          "data_offsets": [4 * samples * classes, 4 * samples * classes + 8 * samples]}}
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        for at in range(0, samples, 10_000):
            y = labels[at : at + 10_000]
            x = rng.standard_normal((len(y), classes), dtype=np.float32)
            x[np.arange(len(y)), y] += rng.exponential(4.0, len(y)).astype(np.float32)
            f.write(x.tobytes())
        f.write(labels.astype(np.int64).tobytes())


def used(who):
    """Processor seconds and peak memory: on a machine that does other things the former are the better measure."""
    usage = resource.getrusage(who)
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}


def torchmetrics(path, batch, threads):
    import numpy as np
    import torch
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
    torch.set_num_threads(threads)
    start = time.perf_counter()
    with open(path, "rb") as f:  # Plain reads: pages of a mapped file would count as memory of the process.
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        begin = f.tell()
        samples, classes = header["logits"]["shape"]
        f.seek(begin + header["labels"]["data_offsets"][0])
        labels = torch.from_numpy(np.fromfile(f, np.int64, samples))
        f.seek(begin)
        options = dict(num_classes=classes, validate_args=False)
        metrics = MetricCollection({
            "accuracy": MulticlassAccuracy(average="micro", **options),
            "top5": MulticlassAccuracy(average="micro", top_k=5, **options),
            "ece": MulticlassCalibrationError(n_bins=15, norm="l1", **options)})
        nll, brier = MeanMetric(), MeanMetric()
        for at in range(0, samples, batch):
            y = labels[at : at + batch]
            x = torch.from_numpy(np.fromfile(f, np.float32, len(y) * classes)).view(len(y), classes)
            p = x.softmax(1)
            metrics.update(p, y)
            nll.update(torch.nn.functional.cross_entropy(x, y, reduction="none"))
            own = p.gather(1, y[:, None])[:, 0]
            brier.update((p * p).sum(1) - 2 * own + 1)
        found = {k: float(v) for k, v in metrics.compute().items()} | {"nll": float(nll.compute()), "brier": float(brier.compute())}
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "values": found, **used(resource.RUSAGE_SELF)}))


def halfstep(path, threads):
    program = os.environ.get("HALFSTEP", ROOT / "target/release/halfstep")
    start = time.perf_counter()
    done = subprocess.run([program, "--threads", str(threads), "verdict", "--baseline", path, "--candidate", path, "--json"],
                          stdout=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - start
    said = json.loads(done.stdout)["seeds"][0]["reference"]
    return {"seconds": seconds, **used(resource.RUSAGE_CHILDREN),
            "values": {k: said[k] for k in ("accuracy", "top_5", "ece", "nll", "brier")}}


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--samples", type=int, default=1_000_000)
    a.add_argument("--classes", type=int, default=1000)
    a.add_argument("--file", default="logits.safetensors")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--batch", type=int, default=4096, help="samples that torchmetrics gets at a time")
    a.add_argument("--only-torchmetrics", action="store_true", help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.only_torchmetrics:
        torchmetrics(a.file, a.batch, a.threads)
        sys.exit()
    if not Path(a.file).exists():
        make(a.file, a.samples, a.classes)
    with open(a.file, "rb") as f:  # Both find the file in the system's cache, as far as it holds it.
        while f.read(1 << 24):
            pass
    ours = halfstep(a.file, a.threads)
    command = [sys.executable, __file__, "--only-torchmetrics", "--file", a.file, "--batch", str(a.batch), "--threads", str(a.threads)]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    for name, r in (("halfstep", ours), ("torchmetrics", theirs)):
        values = "  ".join(f"{k} {v:.6f}" for k, v in r["values"].items())
        print(f"{name:<12}  {r['seconds']:7.1f} s  {r['cpu_seconds']:7.1f} processor s  peak {r['peak_bytes'] / 1e6:7.0f} MB   {values}")
    ratio = lambda key: f"{theirs[key] / ours[key]:.2f}"
    print(f"torchmetrics / halfstep: time {ratio('seconds')}, processor time {ratio('cpu_seconds')}, peak memory {ratio('peak_bytes')}; "
          "halfstep reads and measures the file twice in that time, torchmetrics once")
