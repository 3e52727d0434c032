#!/usr/bin/env python3
"""Servers of the same model side by side: Halfstep's, PyTorch behind uvicorn, and ONNX Runtime in the same frame.

    cargo build --release --features serve && cargo build --release -p halfstep-serve --example load
    halfstep compare recipes/adult-mlp.toml --out cmp
    python3 scripts/beside_servers.py cmp --precision bf16 --alternations 5 --json out.json

The peers come from PyPI into target/serving-peers, with the versions of scripts/requirements/serving-peers.txt (5 GB). All have the
weights of one run, one thread for products unless --threads says otherwise, the same binary tensors in and
out (Open Inference Protocol, one sample a request) and the same rule of batches: what is waiting, 64 samples at most, as soon as the
model is free. PyTorch runs eagerly and compiled; where its compiler is absent, that is said. ONNX Runtime computes in FP32 the
run that was trained so. Before anything is timed, logits of all servers are compared.

A server's throughput is the highest rate of requests, sent at times drawn beforehand, of which none fails and 99 of 100 are answered
within --limit milliseconds; it is found by halving an interval. The servers alternate. The generator runs on the same
processors, and its share of their time is printed.
"""
import argparse, json, os, pathlib, signal, socket, statistics, struct, subprocess, sys, tempfile, time, urllib.request

from environment import ROOT, python

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
    p.add_argument("--tokens", type=int, default=128, help="of a request to a model of text")
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--alternations", type=int, default=5)
    p.add_argument("--halfstep", default=str(ROOT / "target/release/halfstep"))
    p.add_argument("--load", default=str(ROOT / "target/release/examples/load"))
    p.add_argument("--json", type=pathlib.Path)
    return p.parse_args()


def checkpoint(a, precision):
    names = [f"{precision}-seed{a.seed}", "final"]
    for name in names:
        for path in (a.run / "checkpoints" / f"{name}.safetensors", a.run / "checkpoints" / name / "model.safetensors"):
            if path.is_file():
                return name, path
    sys.exit(f"{a.run} has none of the checkpoints {names}")


def sample(port):
    """Name, datatype and extents of one preprocessed sample, by our server's description of the model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/m", timeout=10) as answer:
        inputs = {i["name"]: i for i in json.load(answer)["inputs"]}
    if "x" in inputs:
        return "x", "FP32", [n for n in inputs["x"]["shape"] if n != -1]
    return "tokens", "INT32", None


def http_request(name, datatype, shape):
    count = 1
    for extent in shape:
        count *= extent
    values = [i * 37 % 101 for i in range(count)]
    data = struct.pack(f"<{count}i", *values) if datatype == "INT32" else struct.pack(f"<{count}f", *[v / 101 for v in values])
    head = json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": [1, *shape], "parameters": {"binary_data_size": len(data)}}],
                       "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}).encode()
    lines = ["POST /v2/models/m/infer HTTP/1.1", "Host: localhost", f"Inference-Header-Content-Length: {len(head)}",
             f"Content-Length: {len(head) + len(data)}", "", ""]
    return "\r\n".join(lines).encode() + head + data


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, kind, port, command):
        self.kind, self.port = kind, port
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait(self):
        for _ in range(3000):
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read().decode()[-800:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=1)
                return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("it is not ready after five minutes")

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def our_server(a):
    port, (name, _) = free_port(), checkpoint(a, a.precision)
    return Server("halfstep", port, [a.halfstep, "serve", a.run, "--checkpoint", name, "--listen", f"127.0.0.1:{port}", "--threads", a.threads,
                                     "--max-batch", MOST, "--name", "m"])


def peer_server(a, kind, datatype, shape, folder):
    port = free_port()
    if kind == "onnx":
        weights = f"{folder}/model.onnx"
        command = [a.halfstep, "export", a.run, "--checkpoint", checkpoint(a, "fp32")[0], "--onnx", weights]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    else:
        weights = checkpoint(a, a.precision)[1]
    return Server(kind, port, [a.python, ROOT / "scripts/serving_peer.py", kind, "--run", a.run, "--weights", weights, "--precision", a.precision, "--threads",
                               a.threads, "--port", port, "--dtype", "int32" if datatype == "INT32" else "float32", "--shape", ",".join(map(str, shape))])


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
    a.python = python("serving-peers")
    peers = [kind for kind in a.servers.split(",") if kind != "halfstep"]
    servers = {"halfstep": our_server(a)}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/request.http"
        try:
            name, datatype, shape = sample(servers["halfstep"].wait().port)
            shape = shape or [a.tokens]
            pathlib.Path(file).write_bytes(http_request(name, datatype, shape))
            for kind in peers:
                servers[kind] = peer_server(a, kind, datatype, shape, folder)
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
    main(options())
