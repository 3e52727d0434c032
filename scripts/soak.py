"""Trains 10,000 steps with many checkpoints and all trackers on, and watches the memory of the process.

    cargo build --release --features mlflow,otel
    python scripts/soak.py target/release/halfstep

The trackers are servers that take everything, and for the middle third of the run one of them hangs. Resident memory (VmRSS) is
read ten times a second. It is flat if the median of the last fifth of the run is within 2 % of that of the second fifth. The doctor's
samples are off: each compiles a program and drops it, and what the C library keeps of that grows in steps for some time.
"""

import http.server
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

STEPS = 10_000
RECIPE = f"""
name = "soak"
[data]
kind = "bundled"
name = "digits"
[model]
kind = "mlp"
hidden = [256, 256]
[train]
steps = {STEPS}
batch = 64
evaluate_every = 200
[checkpoint]
every = 100
[doctor]
every = 0
[precision]
policy = "fp16"
"""
begun = time.time()
hangs = [False]


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        while hangs[0]:
            time.sleep(0.1)
        run = {"info": {"run_id": "r", "artifact_uri": "mlflow-artifacts:/0/r/artifacts"}}
        answer = {"create": {"run": run}, "search": {"runs": []}}.get(self.path.rsplit("/", 1)[-1], {})
        if "get-by-name" in self.path:
            answer = {"experiment": {"experiment_id": "0"}}
        body = json.dumps(answer).encode()
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass

    do_PUT = do_GET = do_POST

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
place = pathlib.Path(tempfile.mkdtemp())
(place / "soak.toml").write_text(RECIPE)
program = pathlib.Path(sys.argv[1]).resolve()
command = [program, "train", "soak.toml", "--out", "run", "--json", "--mlflow", url, "--otlp", url]
child = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
seen = []
log = place / "run/metrics.jsonl"
while child.poll() is None:
    try:
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        resident = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
        # About how far it is: a line has some 200 bytes.
        seen.extend((log.stat().st_size if log.exists() else 0, kb) for kb in resident)
    except OSError:
        pass
    if seen:
        share = seen[-1][0] / (STEPS * 200)
        hangs[0] = 1 / 3 < share < 2 / 3
    time.sleep(0.1)
out, err = child.communicate()
assert child.returncode == 0, err
result = json.loads(out)
assert result["steps"] == STEPS and result["checkpoints"]["written"] >= 50, result
size = log.stat().st_size
fifth = lambda i: [kb for at, kb in seen if i * size / 5 < at <= (i + 1) * size / 5]
medians = [statistics.median(fifth(i)) for i in range(5)]
print(f"{STEPS} steps in {result['wall_seconds']:.0f} s, {result['checkpoints']['written']} checkpoints, {len(seen)} readings")
print("median resident memory of each fifth, MB:", ", ".join(f"{kb / 1e3:.1f}" for kb in medians))
print("largest, MB:", max(kb for _, kb in seen) / 1e3)
print(err.strip())
assert abs(medians[4] / medians[1] - 1) < 0.02, "memory is not flat"
print("flat")
