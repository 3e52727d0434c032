#!/usr/bin/env python3
"""Makes crates/evidence/tests/golden/measures.json: what the reference implementations say of small sets of logits.

    pip install numpy scipy scikit-learn torch torchmetrics fairlearn pandas pyarrow safetensors
    python scripts/golden_measures.py

torchmetrics: accuracy, top-5, calibration error, perplexity. scikit-learn: log loss, Brier score, ROC, average precision.
Fairlearn: MetricFrame. scipy: noncentral t, Clopper-Pearson, McNemar by the binomial test, the paired t-test, folded normal,
divergence, the best temperature by a scalar minimiser. Logits are multiples of 1/64, so that text holds them exactly.
"""
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import torch
from fairlearn.metrics import MetricFrame
from safetensors.torch import save_file
from scipy import optimize, special, stats
from sklearn import metrics
from torchmetrics.functional import classification as tm
from torchmetrics.functional.text import perplexity

OUT = Path(__file__).resolve().parent.parent / "crates/evidence/tests/golden/measures.json"
rng = np.random.default_rng(20260101)


def logits(n, classes, labels, strength):
    x = rng.normal(size=(n, classes)) * 1.5
    x[np.arange(n), labels] += strength
    return np.round(x * 64) / 64


def debiased(conf, right):
    """l1 as in verified_calibration's normal_debiased_ce, with the exact mean of the folded normal in place of draws."""
    bins = np.clip((conf * 15).astype(int), 0, 14)
    ece = expected = 0.0
    for b in range(15):
        at = bins == b
        n = at.sum()
        if n:
            gap, sd = right[at].mean() - conf[at].mean(), right[at].std() / np.sqrt(n)
            ece += n / len(conf) * abs(gap)
            mean = stats.foldnorm.mean(abs(gap) / sd, scale=sd) if sd > 0 else abs(gap)
            expected += n / len(conf) * mean
    return 2 * ece - expected


def quality(x, y):
    classes = x.shape[1]
    tx, ty = torch.tensor(x, dtype=torch.float64), torch.tensor(y)
    p = special.softmax(x, axis=1)
    conf, right = p.max(1), p.argmax(1) == y
    nll = lambda t: metrics.log_loss(y, special.softmax(x / t, axis=1), labels=range(classes))
    best = optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})
    return {
        "accuracy": tm.multiclass_accuracy(tx, ty, classes, average="micro").item(),
        "top_5": tm.multiclass_accuracy(tx, ty, classes, average="micro", top_k=min(5, classes)).item(),
        "nll": nll(1.0),
        "perplexity": perplexity(tx[None], ty[None]).item(),
        "brier": metrics.brier_score_loss(y, p, labels=range(classes), scale_by_half=False),
        "ece": tm.multiclass_calibration_error(torch.tensor(p), ty, classes, n_bins=15, norm="l1").item(),
        "ece_debiased": debiased(conf, right),
        "temperature": best.x, "nll_after": best.fun,
    }


def detection(own, foreign):
    y = np.r_[np.zeros(len(own)), np.ones(len(foreign))]
    s = np.r_[own, foreign]
    fpr, tpr, _ = metrics.roc_curve(y, s, drop_intermediate=False)
    return {"auroc": metrics.roc_auc_score(y, s), "aupr": metrics.average_precision_score(y, s),
            "fpr_at_95": fpr[np.argmax(tpr >= 0.95)]}


sets = []
for n, classes, strength in [(200, 10, 2.0), (120, 3, 1.0), (60, 37, 5.0)]:
    y = rng.integers(classes, size=n)
    a, b = logits(n, classes, y, strength), logits(n, classes, y, strength * 0.8)
    foreign = logits(n // 2, classes, y[: n // 2], 0.0)
    group = rng.choice(["north", "south", "west"], size=n, p=[0.6, 0.3, 0.1])
    pa, pb = special.softmax(a, axis=1), special.softmax(b, axis=1)
    ra, rb = pa.argmax(1) == y, pb.argmax(1) == y
    only_a, only_b = int((ra & ~rb).sum()), int((~ra & rb).sum())
    frame = MetricFrame(metrics={"accuracy": metrics.accuracy_score, "samples": lambda t, p: len(t)},
                        y_true=y, y_pred=pb.argmax(1), sensitive_features=pd.Series(group, name="region"))
    sets.append({
        "classes": classes, "labels": y.tolist(), "groups": group.tolist(),
        "first": a.ravel().tolist(), "second": b.ravel().tolist(), "foreign": foreign.ravel().tolist(),
        "quality": [quality(a, y), quality(b, y)],
        "flips": float((pa.argmax(1) != pb.argmax(1)).mean()),
        "negative_flips": only_a / n, "positive_flips": only_b / n,
        "kl": float(stats.entropy(pa, pb, axis=1).mean()),
        "mcnemar": float(stats.binomtest(only_a, only_a + only_b).pvalue),
        "max_softmax": detection(-pa.max(1), -special.softmax(foreign, axis=1).max(1)),
        "energy": detection(-special.logsumexp(a, axis=1), -special.logsumexp(foreign, axis=1)),
        "by_group": {k: {"accuracy": float(v["accuracy"]), "samples": int(v["samples"])}
                     for k, v in frame.by_group.iterrows()},
    })

t = lambda n: stats.t.ppf(0.95, n - 1)
power = [[n, r, float(stats.nct.sf(t(n), n - 1, np.sqrt(n) / r))]
         for n, r in [(2, 0.5), (4, 0.5), (8, 1.0), (27, 2.0), (79, 3.0), (5, 4.0)]]
exact = lambda k, n: [stats.binomtest(k, n, alternative=a).proportion_ci(0.95, "exact") for a in ("greater", "less")]
bounds = [[k, n, float(exact(k, n)[0].low), float(exact(k, n)[1].high)]
          for k, n in [(0, 10), (0, 59), (1, 10), (3, 20), (17, 59), (10, 10), (2, 400)]]
reference = np.round(rng.normal(0.9, 0.01, 7), 6)
candidate = np.round(reference - 0.004 + rng.normal(0, 0.004, 7), 6)
excess = reference - candidate - 0.01
paired = {"pairs": np.c_[reference, candidate].tolist(), "margin": 0.01,
          "p_pass": float(stats.ttest_1samp(excess, 0, alternative="less").pvalue),
          "p_fail": float(stats.ttest_1samp(excess, 0, alternative="greater").pvalue),
          "correlation": float(stats.pearsonr(reference, candidate).statistic),
          "upper": float(stats.ttest_rel(reference, candidate).confidence_interval(0.90).high),
          "tost": float(max(stats.ttest_1samp(excess, 0, alternative="less").pvalue,
                            stats.ttest_1samp(reference - candidate + 0.01, 0, alternative="greater").pvalue))}
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps({"sets": sets, "power": power, "bounds": bounds, "paired": paired}, separators=(",", ":")) + "\n")
print(OUT.name, OUT.stat().st_size, "bytes")

# The same logits in files as numpy and safetensors write them: the second set, as the readers must
# find it.
second = sets[1]
n, c = len(second["labels"]), second["classes"]
x = np.array(second["first"], dtype=np.float32).reshape(n, c)
y, group = np.array(second["labels"]), np.array(second["groups"])
np.savez(OUT.parent / "plain.npz", logits=x, labels=y, group_region=group, seed=7)
np.savez_compressed(OUT.parent / "compressed.npz", logits=x.astype(np.float16), labels=y.astype(np.int8)[:, None],
                    group_region=group.astype("S"), group_half=(np.arange(n) >= n // 2))
np.savez(OUT.parent / "double.npz", logits=x.astype(np.float64), labels=y.astype(np.uint16))
names, codes = np.unique(group, return_inverse=True)
for name, dtype in [("single", torch.float32), ("bfloat16", torch.bfloat16)]:
    save_file({"logits": torch.tensor(x).to(dtype), "labels": torch.tensor(y), "group_region": torch.tensor(codes)},
              OUT.parent / f"{name}.safetensors", {"seed": "7", "group_region": ",".join(names)})
pq.write_table(pyarrow.table({"logits": x.tolist(), "label": y, "group_region": group.tolist()})
               .replace_schema_metadata({"seed": "7"}), OUT.parent / "plain.parquet", row_group_size=50)
