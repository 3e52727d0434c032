"""Makes crates/train/tests/golden/gpt2.safetensors: a tiny GPT-2 with random weights, under Hugging Face's names, tokens, and
its logits in f64.

    python scripts/golden_gpt2.py        # needs torch and safetensors

The forward pass is written out below with torch's own layer norm, softmax and tanh GELU; where `transformers` is there, its
GPT2LMHeadModel must give the same logits.
"""

import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

LAYERS, WIDTH, HEADS, VOCAB, POSITIONS, BATCH, LENGTH = 2, 16, 2, 24, 12, 2, 8


def weights():
    torch.manual_seed(2)
    draw = lambda *shape: torch.randn(*shape) * 0.3
    w = {"wte.weight": draw(VOCAB, WIDTH), "wpe.weight": draw(POSITIONS, WIDTH)}
    for i in range(LAYERS):
        for ln in ["ln_1", "ln_2"]:
            w[f"h.{i}.{ln}.weight"], w[f"h.{i}.{ln}.bias"] = 1 + draw(WIDTH), draw(WIDTH)
        for name, (a, b) in {
            "attn.c_attn": (WIDTH, 3 * WIDTH),
            "attn.c_proj": (WIDTH, WIDTH),
            "mlp.c_fc": (WIDTH, 4 * WIDTH),
            "mlp.c_proj": (4 * WIDTH, WIDTH),
        }.items():
            w[f"h.{i}.{name}.weight"], w[f"h.{i}.{name}.bias"] = draw(a, b), draw(b)
        w[f"h.{i}.attn.bias"] = torch.tril(torch.ones(1, 1, POSITIONS, POSITIONS))
    w["ln_f.weight"], w["ln_f.bias"] = 1 + draw(WIDTH), draw(WIDTH)
    return w


def logits(w, tokens):
    n, t = tokens.shape
    norm = lambda x, name: F.layer_norm(x, (WIDTH,), w[name + ".weight"], w[name + ".bias"], 1e-5)
    linear = lambda x, name: x @ w[name + ".weight"] + w[name + ".bias"]
    x = w["wte.weight"][tokens] + w["wpe.weight"][:t]
    for i in range(LAYERS):
        q, k, v = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(WIDTH, dim=2)
        q, k, v = (m.view(n, t, HEADS, WIDTH // HEADS).transpose(1, 2) for m in (q, k, v))
        scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(torch.triu(torch.ones(t, t, dtype=torch.bool), 1), -math.inf)
        y = (scores.softmax(3) @ v).transpose(1, 2).reshape(n, t, WIDTH)
        x = x + linear(y, f"h.{i}.attn.c_proj")
        y = F.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + linear(y, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


def beside_transformers(w, tokens, ours):
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except Exception as e:
        print("transformers is not there:", e)
        return
    config = GPT2Config(vocab_size=VOCAB, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    model = GPT2LMHeadModel(config).double().eval()
    state = {"transformer." + k: v for k, v in w.items() if not k.endswith(".attn.bias")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and missing == ["lm_head.weight"], (missing, unexpected)
    model.tie_weights()
    with torch.no_grad():
        theirs = model(tokens).logits
    print("largest difference to transformers:", (theirs - ours).abs().max().item())
    assert torch.allclose(theirs, ours, rtol=0, atol=1e-12)


w = weights()
tokens = torch.randint(0, VOCAB, (BATCH, LENGTH))
exact = {k: v.double() for k, v in w.items()}
result = logits(exact, tokens)
beside_transformers(exact, tokens, result)
path = pathlib.Path(__file__).parent.parent / "crates/train/tests/golden/gpt2.safetensors"
save_file({**w, "golden.tokens": tokens.int(), "golden.logits": result.contiguous()}, path)
print(path, path.stat().st_size, "bytes; logits up to", result.abs().max().item())
