#!/usr/bin/env python3
"""Servers of the same model side by side: Halfstep's, PyTorch behind uvicorn, and ONNX Runtime in the same frame.

    cargo build --release --features serve && cargo build --release -p halfstep-serve --example load
    halfstep compare recipes/adult-mlp.toml --out cmp
    python3 -m venv target/serving-peers && target/serving-peers/bin/pip install torch uvicorn httptools uvloop onnxruntime safetensors
    target/serving-peers/bin/python scripts/beside_servers.py cmp --precision bf16 --alternations 5 --json out.json

All have the weights of one run, one thread for products unless --threads says otherwise, the same binary tensors in and
out (Open Inference Protocol, one sample a request) and the same rule of batches: what is waiting, 64 samples at most, as soon as the
model is free. The frame of both peers is an ASGI application without a router. PyTorch runs eagerly and compiled; where its
compiler is absent, that is said. Before anything is timed, logits of all servers are compared.

A server's throughput is the highest rate of requests, sent at times drawn beforehand, of which none fails and 99 of 100 are answered
within --limit milliseconds; it is found by halving an interval. The servers alternate. The generator runs on the same
processors, and its share of their time is printed.
"""
import argparse, asyncio, json, os, pathlib, signal, socket, statistics, struct, subprocess, sys, tempfile, time, tomllib, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST = 64


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=pathlib.Path, help="a run directory, or a comparison's")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--servers", default="halfstep,torch,compiled,onnx")
    p.add_argument("--threads", type=int, default=1, help="threads that compute, in every server")
    p.add_argument("--limit", type=float, default=20.0, help="milliseconds that 99 of 100 answers may take")
    p.add_argument("--seconds", type=float, default=3.0, help="of load at each rate")
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--alternations", type=int, default=5)
    p.add_argument("--halfstep", default=str(ROOT / "target/release/halfstep"))
    p.add_argument("--load", default=str(ROOT / "target/release/examples/load"))
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--peer", help=argparse.SUPPRESS)
    p.add_argument("--port", type=int, help=argparse.SUPPRESS)
    p.add_argument("--shape", type=lambda text: [int(n) for n in text.split(",")], help=argparse.SUPPRESS)
    return p.parse_args()


# The peers.

def weights(a):
    """The recipe, and the weights of the run by name."""
    from safetensors.torch import load_file
    recipe = tomllib.loads((a.run / "recipe.toml").read_text())
    return recipe, load_file(checkpoint(a))


def checkpoint(a):
    names = [f"{a.precision}-seed{a.seed}", "final"]
    for name in names:
        for path in (a.run / "checkpoints" / f"{name}.safetensors", a.run / "checkpoints" / name / "model.safetensors"):
            if path.is_file():
                return path
    sys.exit(f"{a.run} has none of the checkpoints {names}")


def torch_model(a, compiled):
    """What computes logits of a NumPy array of samples."""
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(a.threads)
    recipe, w = weights(a)
    kind = recipe["model"]["kind"]
    low = torch.bfloat16 if a.precision == "bf16" else torch.float32
    w = {name: value.to(low) for name, value in w.items()}
    if kind == "mlp":
        layers = sorted({name.rsplit(".", 1)[0] for name in w}, key=lambda n: (n == "head", n))

        def net(x):
            for layer in layers:
                x = F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"])
                x = F.relu(x) if layer != layers[-1] else x
            return x
    elif kind == "cnn":
        # Ours are [out, height, width, in].
        convs = [(w[f"convs.{i}.weight"].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last), w[f"convs.{i}.bias"])
                 for i in range(len(recipe["model"]["channels"]))]

        def net(x):
            x = x.permute(0, 3, 1, 2)
            for weight, bias in convs:
                x = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
            x = F.relu(F.linear(x, w["hidden.weight"], w["hidden.bias"]))
            return F.linear(x, w["head.weight"], w["head.bias"])
    else:
        sys.exit(f"no model of the kind {kind} here")
    net = torch.compile(net, dynamic=True) if compiled else net

    def run(x):
        with torch.inference_mode():
            return net(torch.from_numpy(x).to(low)).float().numpy()

    return run


def onnx_model(a):
    import onnxruntime
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        subprocess.run([a.halfstep, "export", a.run, "--checkpoint", checkpoint_name(a), "--onnx", path], check=True, capture_output=True)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = a.threads, 1
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def checkpoint_name(a):
    path = checkpoint(a)
    return path.parent.name if path.name == "model.safetensors" else path.stem


def application(compute, shape):
    """An ASGI application that answers inference requests with binary tensors."""
    import numpy as np
    from concurrent.futures import ThreadPoolExecutor
    waiting, ready, pool = [], asyncio.Event(), ThreadPoolExecutor(1)

    async def batches():
        loop = asyncio.get_running_loop()
        while True:
            await ready.wait()
            taken = waiting[:MOST]
            del waiting[:MOST]
            if not waiting:
                ready.clear()
            x = np.frombuffer(b"".join(body for body, _ in taken), np.float32).reshape(-1, *shape)
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


def peer(a):
    import numpy as np
    import uvicorn
    shape = a.shape
    compute = onnx_model(a) if a.peer == "onnx" else torch_model(a, a.peer == "compiled")
    for n in (1, 2, 3, 17, MOST):
        compute(np.zeros((n, *shape), np.float32))
    uvicorn.run(application(compute, shape), host="127.0.0.1", port=a.port, log_level="error", access_log=False)


# The measurement.

def sample_shape(port):
    """The extents of one preprocessed sample, by our server's description of the model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/m", timeout=10) as answer:
        inputs = {i["name"]: i for i in json.load(answer)["inputs"]}
    return [n for n in inputs["x"]["shape"] if n != -1]


def http_request(model, shape, value):
    count = 1
    for extent in shape:
        count *= extent
    data = struct.pack(f"<{count}f", *[value * ((i * 37) % 101 / 101) for i in range(count)])
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, *shape], "parameters": {"binary_data_size": len(data)}}],
                       "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}).encode()
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: localhost", f"Inference-Header-Content-Length: {len(head)}",
             f"Content-Length: {len(head) + len(data)}", "", ""]
    return "\r\n".join(lines).encode() + head + data


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, a, kind, shape):
        self.kind, self.port = kind, free_port()
        if kind == "halfstep":
            command = [a.halfstep, "serve", a.run, "--checkpoint", checkpoint_name(a), "--listen", f"127.0.0.1:{self.port}",
                       "--threads", str(a.threads), "--max-batch", str(MOST), "--name", "m"]
        else:
            command = [sys.executable, __file__, a.run, "--seed", str(a.seed), "--precision", a.precision, "--threads", str(a.threads),
                       "--halfstep", a.halfstep, "--peer", kind, "--port", str(self.port), "--shape", ",".join(map(str, shape))]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read().decode()[-800:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=1)
                return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("it is not ready after two minutes")

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def logits(port, request):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += s.recv(65536)
        head, body = answer.split(b"\r\n\r\n", 1)
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head.decode().split("\r\n")[1:])}
        if " 200 " not in head.decode().split("\r\n")[0]:
            sys.exit(f"refused: {answer[:800]}")
        while len(body) < int(fields["content-length"]):
            body += s.recv(65536)
    raw = body[int(fields["inference-header-content-length"]):]
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def at_rate(a, server, file, rate):
    before = server.cpu()
    out = subprocess.run([a.load, f"127.0.0.1:{server.port}", file, "--rate", str(rate), "--seconds", str(a.seconds), "--connections", str(a.connections)],
                         check=True, capture_output=True, text=True).stdout
    seen = json.loads(out)
    seen["server_s"] = server.cpu() - before
    answered = seen["statuses"].get("200", 0)
    asked = answered + seen["failed"] + sum(n for status, n in seen["statuses"].items() if status != "200")
    seen["holds"] = answered == asked and (seen["p99_ms"] or 1e9) <= a.limit
    return seen


def throughput(a, server, file, guess):
    """The highest rate that holds, within 5 %, and what was seen at it."""
    low, high, best, rate = 0.0, None, None, guess
    while high is None or high > 1.05 * max(low, 1):
        seen = at_rate(a, server, file, rate)
        if seen["holds"]:
            low, best = rate, seen
        else:
            high = rate
        rate = 2 * rate if high is None else ((low * high) ** 0.5 if low else high / 2)
        if rate < 1:
            return 0.0, seen
    return low, best


def main(a):
    peers = [kind for kind in a.servers.split(",") if kind != "halfstep"]
    servers = {"halfstep": Server(a, "halfstep", [])}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/request.http"
        try:
            shape = sample_shape(servers["halfstep"].wait().port)
            pathlib.Path(file).write_bytes(http_request("m", shape, 1.0))
            for kind in peers:
                servers[kind] = Server(a, kind, shape)
            for kind in peers:
                try:
                    servers[kind].wait()
                except RuntimeError as e:
                    print(f"{kind} is left out: {e}", file=sys.stderr)
                    servers.pop(kind)
            first = {kind: logits(server.port, pathlib.Path(file).read_bytes()) for kind, server in servers.items()}
            ours = next(iter(first.values()))
            scale = max(map(abs, ours))
            for kind, values in first.items():
                print(f"{kind}: logits differ from the first server's by {max(abs(x - y) for x, y in zip(ours, values)):.3g} of {scale:.3g}", flush=True)
            rates, guess = {kind: [] for kind in servers}, {kind: 500.0 for kind in servers}
            for turn in range(a.alternations):
                for kind, server in servers.items():
                    rate, seen = throughput(a, server, file, guess[kind])
                    guess[kind] = max(rate, 1.0)
                    rates[kind].append({"rate": rate, **seen})
                    share = seen["processor_s"] / max(seen["processor_s"] + seen["server_s"], 1e-9)
                    print(f"{turn} {kind}: {rate:.0f} requests a second, p50 {seen['p50_ms']:.2f} ms, p99 {seen['p99_ms']:.2f} ms, generator {share:.0%} of the processor time", flush=True)
        finally:
            for server in servers.values():
                server.stop()
    print(f"\n| {a.precision}, p99 within {a.limit:g} ms | requests a second, median (least to most) | p50 ms | p99 ms |\n|---|--:|--:|--:|")
    for kind, all_ in rates.items():
        values = sorted(r["rate"] for r in all_)
        middle = lambda key: statistics.median(r[key] for r in all_)
        print(f"| {kind} | {statistics.median(values):.0f} ({values[0]:.0f} to {values[-1]:.0f}) | {middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} |")
    if a.json:
        a.json.write_text(json.dumps({"arguments": {k: str(v) for k, v in vars(a).items()}, "rates": rates}, indent=1))


if __name__ == "__main__":
    a = options()
    peer(a) if a.peer else main(a)
