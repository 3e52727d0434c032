#!/usr/bin/env python3
"""Makes crates/evidence/tests/golden/robustness.json and crates/stress/src/golden.json: what reference implementations
say of what `halfstep stress` computes.

    pip install numpy scipy scikit-learn torch
    python scripts/golden_robustness.py

scikit-learn and scipy: Mahalanobis distance, Gaussian blur, shift. numpy: spectral signatures by the singular value decomposition,
contrast, mean corruption error. torch: gradients of the cross-entropy and of the difference of logits ratio (the formula of AutoAttack),
symmetric integers by channel, cosine similarity; FGSM and PGD on a small net with the same weights, in f32. The schedule of the
Square attack is the code of its authors (github.com/max-andr/square-attack, utils of the MIT-licensed AutoAttack).
"""
import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

ROOT = Path(__file__).resolve().parent.parent
rng = np.random.default_rng(20260102)
sixtyfourths = lambda *shape: np.round(rng.normal(size=shape) * 64) / 64
single = lambda a: np.asarray(a, dtype=np.float32).astype(np.float64).ravel().tolist()

# Features of three classes, one feature never varying, as a dead unit.
labels = rng.integers(3, size=60)
features = sixtyfourths(60, 5) + labels[:, None] * np.array([1, 0, 2, 0, 0.5])
features[:, 3] = 0.25
foreign = sixtyfourths(8, 5) * 3
means = np.stack([features[labels == c].mean(0) for c in range(3)])
covariance = EmpiricalCovariance(assume_centered=True).fit(features - means[labels]).covariance_
covariance += 1e-3 * np.trace(covariance) / 5 * np.eye(5)
inverse = np.linalg.inv(covariance)
score = lambda x: min(mahalanobis(x, m, inverse) ** 2 for m in means)
spectral = np.zeros(60)
for c in range(3):
    centred = features[labels == c] - features[labels == c].mean(0)
    spectral[labels == c] = (centred @ np.linalg.svd(centred)[2][0]) ** 2

image = np.round(rng.random((9, 7, 2)) * 64) / 64
blurred = lambda sd: ndimage.gaussian_filter(image, (sd, sd, 0), mode="nearest", truncate=4.0)
faded = lambda f: np.clip((image - image.mean((0, 1))) * f + image.mean((0, 1)), 0, 1)
moved = lambda s: ndimage.shift(image, (round(s * 9), round(s * 7), 0), order=0, mode="constant")
corrupted = {
    "blur": [single(blurred(c * 7 / 32)) for c in (0.4, 0.6, 0.7, 0.8, 1.0)],
    "contrast": [single(faded(c)) for c in (0.4, 0.3, 0.2, 0.1, 0.05)],
    "shift": [single(moved(c)) for c in (0.04, 0.08, 0.12, 0.16, 0.2)],
}
errors, baseline = rng.random((4, 5)).round(3), rng.random((4, 5)).round(3)
clean = [0.0625, 0.03125]
over = errors.sum(1) / baseline.sum(1)
relative = (errors - clean[0]).sum(1) / (baseline - clean[1]).sum(1)


def dlr(x, y):
    """autoattack's dlr_loss, without the 1e-12 in its denominator."""
    ordered, order = x.sort(dim=1)
    is_top = (order[:, -1] == y).to(x.dtype)
    u = torch.arange(len(x))
    return -(x[u, y] - ordered[:, -2] * is_top - ordered[:, -1] * (1.0 - is_top)) / (ordered[:, -1] - ordered[:, -3])


logits, y = sixtyfourths(12, 5) * 4, rng.integers(5, size=12)
gradient = {}
for name, loss in (("cross_entropy", lambda x, y: torch.nn.functional.cross_entropy(x, y, reduction="none")), ("dlr", dlr)):
    x = torch.tensor(logits, requires_grad=True)
    value = loss(x, torch.tensor(y))
    value.sum().backward()
    gradient[name] = {"loss": value.tolist(), "gradient": x.grad.ravel().tolist()}


def p_selection(p_init, it, n_iters):
    it = int(it / n_iters * 10000)
    if 10 < it <= 50: return p_init / 2
    if 50 < it <= 200: return p_init / 4
    if 200 < it <= 500: return p_init / 8
    if 500 < it <= 1000: return p_init / 16
    if 1000 < it <= 2000: return p_init / 32
    if 2000 < it <= 4000: return p_init / 64
    if 4000 < it <= 6000: return p_init / 128
    if 6000 < it <= 8000: return p_init / 256
    if 8000 < it <= 10000: return p_init / 512
    return p_init


weights = np.float32(rng.normal(size=(4, 12)))
integers = {}
for bits in (4, 8):
    largest = 2 ** (bits - 1) - 1
    scale = torch.tensor(np.abs(weights).max(1) / np.float32(largest))
    stored = torch.fake_quantize_per_channel_affine(torch.tensor(weights), scale, torch.zeros(4, dtype=torch.int32), 0, -largest, largest)
    integers[str(bits)] = single(stored)

a, b = sixtyfourths(6, 10), sixtyfourths(6, 10)
b = a + b / 8
ta, tb = torch.tensor(a), torch.tensor(b)
layer = {"reference": single(a), "other": single(b),
         "relative_l2": float(np.linalg.norm(b - a) / np.linalg.norm(a)),
         "mean_relative_l2": float((np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)).mean()),
         "cosine": float(torch.nn.functional.cosine_similarity(ta, tb).mean())}

out = ROOT / "crates/evidence/tests/golden/robustness.json"
out.write_text(json.dumps({
    "features": {"width": 5, "labels": labels.tolist(), "own": single(features), "foreign": single(foreign),
                 "distance": [score(x) for x in foreign], "spectral": spectral.tolist()},
    "image": {"height": 9, "width": 7, "channels": 2, "pixels": single(image), "corrupted": corrupted},
    "mce": {"errors": errors.tolist(), "baseline": baseline.tolist(), "clean": clean, "mce": over.mean(), "relative": relative.mean()},
    "logits": {"classes": 5, "labels": y.tolist(), "logits": single(logits), **gradient},
    "square": [[it, p_selection(0.3, it, 100)] for it in range(0, 100, 3)],
    "integers": {"row": 12, "weights": single(weights), **integers},
    "layer": layer,
}, separators=(",", ":")) + "\n")
print(out.name, out.stat().st_size, "bytes")

# A net of 6 pixels, 5 hidden units and 4 classes, and 8 images.
torch.manual_seed(3)
net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
with torch.no_grad():
    for p in net.parameters():
        p.mul_(2)
pixels, classes = torch.rand(8, 6), torch.arange(8) % 4
mean, std, epsilon, steps = 0.25, 0.5, 0.03, 5
smallest = []


def ascend(loss, steps, step):
    x = pixels.clone()
    for _ in range(steps):
        x.requires_grad_(True)
        g, = torch.autograd.grad(loss(net((x - mean) / std), classes).sum(), x)
        smallest.append(g[g != 0].abs().min().item())
        x = (x.detach() + step * g.sign())
        x = torch.min(torch.max(x, pixels - epsilon), pixels + epsilon).clamp(0, 1)
    return single(x)


ce = lambda x, y: torch.nn.functional.cross_entropy(x, y, reduction="none")
step = float(np.float32(2.5) * np.float32(epsilon) / np.float32(steps))
found = {"fgsm": ascend(ce, 1, epsilon), "pgd": ascend(ce, steps, step), "dlr": ascend(dlr, steps, step)}
normalised = ((pixels - mean) / std).double().requires_grad_(True)
g, = torch.autograd.grad(ce(net.double()(normalised), classes).sum(), normalised)
# A sign must not hang on rounding.
assert min(smallest) > 1e-4, min(smallest)
out = ROOT / "crates/stress/src/golden.json"
names = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
out.write_text(json.dumps({
    "weights": {n: single(p.detach().numpy()) for n, p in zip(names, net.parameters())},
    "pixels": single(pixels), "labels": classes.tolist(), "mean": mean, "std": std, "epsilon": epsilon, "steps": steps,
    "gradient": g.ravel().tolist(), **found,
}, separators=(",", ":")) + "\n")
print(out.name, out.stat().st_size, "bytes")
