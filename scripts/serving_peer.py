"""A server that scripts/beside_servers.py compares with: PyTorch or ONNX Runtime behind uvicorn, in an ASGI application without
a router.

Answers the binary form of Open Inference Protocol, one sample a request. What waits is computed together, 64 samples at
most, as soon as the model is free.
"""
import argparse
import asyncio
import json
import pathlib
import tomllib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import uvicorn

MOST = 64


def torch_model(run, checkpoint, precision, threads, compiled):
    """What computes logits of a NumPy array of samples, with the weights in `precision`, and batch norms folded into convolutions."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    spec = tomllib.loads((run / "recipe.toml").read_text())["model"]
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    w = load_file(checkpoint)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def image_first(weight):
        # Ours are [out, height, width, in].
        return weight.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    if spec["kind"] == "mlp":
        layers = sorted({name.rsplit(".", 1)[0] for name in w}, key=lambda name: int(name.split(".")[1]))

        def net(x):
            for layer in layers[:-1]:
                x = F.relu(linear(x, layer))
            return linear(x, layers[-1])

    elif spec["kind"] == "cnn":
        convs = [(image_first(w[f"convs.{i}.weight"]), w[f"convs.{i}.bias"]) for i in range(len(spec["channels"]))]

        def net(x):
            x = x.permute(0, 3, 1, 2)
            for weight, bias in convs:
                x = F.max_pool2d(F.relu(F.conv2d(x, weight.to(low), bias.to(low), padding=1)), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
            return linear(F.relu(linear(x, "hidden")), "head")

    elif spec["kind"] == "resnet18":

        def folded(conv, norm):
            factor = w[f"{norm}.weight"] / torch.sqrt(w[f"{norm}.running_var"] + 1e-5)
            weight = image_first(w[f"{conv}.weight"] * factor[:, None, None, None])
            return weight.to(low), (w[f"{norm}.bias"] - w[f"{norm}.running_mean"] * factor).to(low)

        blocks = []
        for i in range(8):
            at, stride = f"blocks.{i}", 2 if i in (2, 4, 6) else 1
            skip = folded(f"{at}.skip.0", f"{at}.skip.1") if stride == 2 else None
            blocks.append((stride, folded(f"{at}.c1", f"{at}.b1"), folded(f"{at}.c2", f"{at}.b2"), skip))
        stem = folded("stem.0", "stem.1")

        def net(x):
            x = F.relu(F.conv2d(x.permute(0, 3, 1, 2), *stem, padding=1))
            for stride, first, second, skip in blocks:
                y = F.conv2d(F.relu(F.conv2d(x, *first, stride=stride, padding=1)), *second, padding=1)
                x = F.relu(y + (x if skip is None else F.conv2d(x, *skip, stride=stride)))
            return linear(x.mean((2, 3)), "head")

    else:
        width, heads, depth = spec["width"], spec["heads"], spec["layers"]

        def norm(x, name):
            return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

        def net(tokens):
            n, t = tokens.shape
            x = w["tok.weight"][tokens] + w["pos.weight"][:t]
            for i in range(depth):
                at = f"blocks.{i}"
                qkv = linear(norm(x, f"{at}.ln1"), f"{at}.qkv").split(width, 2)
                q, k, v = (part.view(n, t, heads, -1).transpose(1, 2) for part in qkv)
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = x + linear(y.transpose(1, 2).reshape(n, t, width), f"{at}.proj")
                x = x + linear(F.gelu(linear(norm(x, f"{at}.ln2"), f"{at}.up")), f"{at}.down")
            return F.linear(norm(x[:, -1], "ln"), w["tok.weight"])

    w = {name: value.to(low) for name, value in w.items()}
    forward = torch.compile(net, dynamic=True) if compiled else net

    def logits(x):
        with torch.inference_mode():
            x = torch.from_numpy(x)
            return forward(x if x.dtype == torch.int32 else x.to(low)).float().numpy()

    return logits


def onnx_model(file, threads):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def logits(x):
        all_ = session.run(None, {name: x})[0]
        # Of a text, those of the next token.
        return all_.reshape(len(x), -1, all_.shape[-1])[:, -1]

    return logits


def application(compute, dtype, shape):
    waiting, ready, pool = [], asyncio.Event(), ThreadPoolExecutor(1)

    async def batches():
        loop = asyncio.get_running_loop()
        while True:
            await ready.wait()
            taken = waiting[:MOST]
            del waiting[:MOST]
            if not waiting:
                ready.clear()
            x = np.frombuffer(bytearray(b"".join(body for body, _ in taken)), dtype).reshape(-1, *shape)
            logits = await loop.run_in_executor(pool, compute, x)
            for row, (_, future) in zip(logits, taken):
                if not future.done():
                    future.set_result(row)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    app.task = asyncio.create_task(batches())
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "GET":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body", "body": b""})
        header = int(dict(scope["headers"])[b"inference-header-content-length"])
        request = json.loads(body[:header])
        future = asyncio.get_running_loop().create_future()
        waiting.append((body[header:], future))
        ready.set()
        logits = np.asarray(await future, np.float32).tobytes()
        spec = {"name": "logits", "datatype": "FP32", "shape": [1, len(logits) // 4], "parameters": {"binary_data_size": len(logits)}}
        text = json.dumps({"model_name": "m", "id": request.get("id", ""), "outputs": [spec]}).encode()
        headers = [(b"inference-header-content-length", str(len(text)).encode()), (b"content-length", str(len(text) + len(logits)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text + logits})

    return app


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("kind", choices=["torch", "compiled", "onnx"])
    p.add_argument("--run", type=pathlib.Path)
    p.add_argument("--weights", help="a safetensors file, or an ONNX file")
    p.add_argument("--precision")
    p.add_argument("--threads", type=int)
    p.add_argument("--port", type=int)
    p.add_argument("--dtype")
    p.add_argument("--shape", type=lambda text: [int(n) for n in text.split(",")])
    a = p.parse_args()
    if a.kind == "onnx":
        compute = onnx_model(a.weights, a.threads)
    else:
        compute = torch_model(a.run, a.weights, a.precision, a.threads, a.kind == "compiled")
    for n in (1, 2, 3, 17, MOST):
        compute(np.zeros((n, *a.shape), a.dtype))
    uvicorn.run(application(compute, a.dtype, a.shape), host="127.0.0.1", port=a.port, log_level="error", access_log=False)


main()
