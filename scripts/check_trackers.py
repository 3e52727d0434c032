"""Trains a recipe and compares what TensorBoard, MLflow and a trace collector have got of it with metrics.jsonl.

    pip install tensorboard mlflow opentelemetry-proto
    cargo build --features mlflow,otel
    python scripts/check_trackers.py target/debug/halfstep [recipes/digits-mlp.toml]

MLflow's own server runs on this machine; it is not there when the run begins, and curves are read back through its own client.
TensorBoard's file is read by TensorBoard's own EventAccumulator; spans are decoded by OpenTelemetry's own messages.
"""

import http.server
import json
import math
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

program = pathlib.Path(sys.argv[1]).resolve()
recipe = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "recipes/digits-mlp.toml").resolve()
place = pathlib.Path(tempfile.mkdtemp())
spans = []


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=collector.serve_forever, daemon=True).start()
port = free_port()
uri = f"http://127.0.0.1:{port}"
environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "OTEL"))}


def halfstep(*args):
    begun = time.time()
    done = subprocess.run([program, *args], cwd=place, env=environment, capture_output=True, text=True)
    return done, time.time() - begun


run = place / "run"
command = ["train", str(recipe), "--precision", "fp16", "--experiment", "check", "--json"]
done, alone = halfstep("train", str(recipe), "--precision", "fp16", "--json", "--out", "alone")
assert done.returncode == 0, done.stderr
# MLflow is not there yet: the run must not care, and must say so.
otlp = f"http://127.0.0.1:{collector.server_port}"
done, told = halfstep(*command, "--mlflow", uri, "--otlp", otlp, "--out", "run")
assert done.returncode == 0, done.stderr
assert "MLflow" in done.stderr and "halfstep track" in done.stderr, done.stderr
print(f"a run alone took {alone:.1f} s, with a tracker that is down {told:.1f} s")

lines = [json.loads(line) for line in open(run / "metrics.jsonl")]
steps = [line for line in lines if line["event"] == "step"]
evaluations = [line for line in lines if line["event"] == "evaluation"]
skipped = [sum(not s["committed"] for s in steps[: i + 1]) for i in range(len(steps))]
number = lambda x: math.nan if x is None else x
curves = {
    "loss/train": [(s["attempt"], number(s["loss"])) for s in steps],
    "grad_norm": [(s["attempt"], number(s["grad_norm"])) for s in steps],
    "lr": [(s["attempt"], s["lr"]) for s in steps],
    "loss_scale": [(s["attempt"], s["scale"]) for s in steps],
    "skipped_steps": [(s["attempt"], n) for s, n in zip(steps, skipped)],
    "loss/test": [(e["attempt"], number(e["loss"])) for e in evaluations],
    "accuracy/test": [(e["attempt"], e["accuracy"]) for e in evaluations],
}


def compare(tool, name, found):
    """Losses and norms are f32, and TensorBoard keeps scalars in f32: numbers are the same if they are the same f32."""
    expected = curves[name]
    assert [s for s, _ in found] == [s for s, _ in expected], f"{tool}: steps of {name}"
    f32 = lambda x: struct.pack("f", x)
    for (step, a), (_, b) in zip(found, expected):
        same = f32(a) == f32(b) or (math.isnan(a) and math.isnan(b))
        assert same, f"{tool}: {name} at {step}: {a} is not {b}"


from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
for name in curves:
    compare("TensorBoard", name, [(e.step, e.value) for e in events.Scalars(name)])
assert "samples_per_second" in events.Tags()["scalars"]
texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ["recipe", "plan"]}
assert (run / "recipe.toml").read_text() in texts["recipe"] and "fp16" in texts["plan"]
print(f"TensorBoard: {len(curves)} curves of {len(steps)} steps and {len(evaluations)} evaluations agree; texts are there")

names = sorted((span.name for span in spans))
count = {name: names.count(name) for name in set(names)}
assert count["run"] == 1 and count["evaluation"] == len(evaluations) and count["checkpoint"] >= 1, count
[root] = [span for span in spans if span.name == "run"]
assert all(span.trace_id == root.trace_id for span in spans)
assert all(span.parent_span_id == root.span_id for span in spans if span is not root)
assert all(root.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano for s in spans)
print("OpenTelemetry:", count)

server = subprocess.Popen(
    [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
     "--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "artifacts")],
    cwd=place, stdout=open(place / "server.log", "w"), stderr=subprocess.STDOUT, env=environment,
)  # fmt: skip
try:
    for _ in range(600):
        try:
            urllib.request.urlopen(uri + "/health", timeout=1)
            break
        except OSError:
            assert server.poll() is None, (place / "server.log").read_text()
            time.sleep(0.5)
    done, took = halfstep("track", "run", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"MLflow is back: `halfstep track` sent the run in {took:.1f} s")
    done, took = halfstep(*command, "--mlflow", uri, "--out", "live")
    assert done.returncode == 0 and "MLflow at" in done.stderr, done.stderr

    import mlflow

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    [experiment] = client.search_experiments(filter_string="name = 'check'")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["live", "run"], runs
    # Both runs have the same seed and so the same curves.
    for name, kept in runs.items():
        assert kept.info.status == "FINISHED", kept.info
        for curve in curves:
            history = client.get_metric_history(kept.info.run_id, curve)
            history.sort(key=lambda m: m.step)
            compare(f"MLflow ({name})", curve, [(m.step, m.value) for m in history])
        assert kept.data.params["precision.policy"] == "fp16", kept.data.params
        files = {f.path for f in client.list_artifacts(kept.info.run_id)}
        assert {"plan.json", "recipe.toml", "preprocessing.json"} <= files, files
        plan = client.download_artifacts(kept.info.run_id, "plan.json", str(place))
        assert pathlib.Path(plan).read_bytes() == (place / name / "plan.json").read_bytes()
    print(f"MLflow: {len(curves)} curves of two runs agree, one sent later and one as it went; parameters and plan are there")
finally:
    server.terminate()
    server.wait()
