#!/usr/bin/env python3
"""Makes crates/evidence/tests/golden/classes.json: what scikit-learn says of the answers of small sets of logits.

    pip install numpy scipy scikit-learn
    python scripts/golden_classes.py

Confusion matrix, precision, recall and F1 of each class, macro-F1, balanced accuracy, AUROC (of two classes; one-vs-rest, macro), and the
best constant predictors (DummyClassifier: accuracy of `most_frequent`, log loss of `prior`). Logits are multiples of 1/8, so that text
holds them exactly and some of them tie.
"""
import json
import warnings
from pathlib import Path

import numpy as np
from scipy import special
from sklearn import metrics
from sklearn.dummy import DummyClassifier

OUT = Path(__file__).resolve().parent.parent / "crates/evidence/tests/golden/classes.json"
rng = np.random.default_rng(20261127)


def scores(x, y):
    classes = range(x.shape[1])
    # The first of equals, as numpy has it too.
    answers = x.argmax(1)
    p = special.softmax(x, axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, answers, labels=classes, zero_division=np.nan)
    # scikit-learn's one-vs-rest wants every class in y; where one is missing, the mean over those
    # that are there.
    there = [c for c in classes if 0 < (y == c).sum() < len(y)]
    if len(classes) == 2:
        auroc = metrics.roc_auc_score(y, p[:, 1])
    elif len(there) == len(classes):
        auroc = metrics.roc_auc_score(y, p, multi_class="ovr", average="macro")
    else:
        auroc = np.mean([metrics.roc_auc_score(y == c, p[:, c]) for c in there])
    most, prior = (DummyClassifier(strategy=s).fit(x, y) for s in ("most_frequent", "prior"))
    null = lambda v: [None if np.isnan(a) else float(a) for a in v]
    return {
        "confusion_matrix": metrics.confusion_matrix(y, answers, labels=classes).tolist(),
        "precision": null(precision), "recall": null(recall), "f1": null(f1), "support": support.tolist(),
        "macro_f1": metrics.f1_score(y, answers, average="macro", zero_division=0),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, answers),
        "auroc": auroc,
        "majority_accuracy": most.score(x, y),
        "constant_nll": metrics.log_loss(y, prior.predict_proba(x), labels=np.unique(y)),
    }


sets = []
# (samples, chance of each class, strength); the last class of the fourth set has no samples.
for n, chances, strength in [(150, [0.5, 0.5], 1.0), (200, [0.93, 0.07], 2.0), (180, [0.2] * 5, 1.5), (120, [0.4, 0.3, 0.3, 0], 1.0)]:
    y = rng.choice(len(chances), size=n, p=chances)
    x = rng.normal(size=(n, len(chances)))
    x[np.arange(n), y] += strength
    x = np.round(x * 8) / 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sets.append({"classes": len(chances), "labels": y.tolist(), "logits": x.ravel().tolist()} | scores(x, y))
OUT.write_text(json.dumps({"sets": sets}, separators=(",", ":")) + "\n")
print(OUT.name, OUT.stat().st_size, "bytes")
