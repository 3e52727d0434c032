#!/usr/bin/env python3
"""Sends mixed requests to a server that follows an alias, while versions are deployed, rolled back and deployed again, the server is killed
and ended, and a writer of the registry is killed.

    cargo build --release --features serve
    python3 scripts/soak_serving.py target/release/halfstep [--seconds 600]

Each answer has to have, bit for bit, the logits that `halfstep predict` gives for the version that it names. Each request that fails has to
overlap a time in which this script had killed or ended the server; at a rollback none may fail, and the first answer of the old version has
to come within a second of the start of the command. Requests are JSON, binary tensors and gRPC, the last by tritonclient, which comes from
PyPI into target/tritonclient (190 MB); where it cannot be had gRPC is left out and that is said. The exit code is 1 where anything differs.
"""

import http.client
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from environment import python

IMAGES = 64
PIXELS = 64  # of 8 × 8
CLASSES = 10
CLIENTS = 6
SHOWN = 10  # faults
RECIPE = """name = "soak"
seed = {seed}
[data]
kind = "bundled"
name = "digits"
[model]
kind = "mlp"
hidden = [32]
[optimiser]
kind = "adamw"
lr = 2e-3
[train]
epochs = 2
batch = 32
"""

faults = []
say = threading.Lock()


def fault(what):
    with say:
        faults.append(what)
        if len(faults) <= SHOWN:
            print(f"FAULT: {what}", flush=True)


class Place:
    """A folder with a registry, two signed versions of a model and what each answers."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.random = random.Random(0)
        self.env = dict(
            os.environ,
            HALFSTEP_KEYS=str(folder / "keys"),
            XDG_STATE_HOME=str(folder / "state"),
            HALFSTEP_REGISTRY=str(folder / "registry"),
        )
        self.images = [bytes(self.random.randrange(256) for _ in range(PIXELS)) for _ in range(IMAGES)]
        (folder / "images").mkdir()
        for place, pixels in enumerate(self.images):
            (folder / f"images/{place:03}.pgm").write_bytes(b"P5 8 8 255\n" + pixels)
        self.run("key", "new", "--no-passphrase")
        public = (folder / "keys/signing-key.pub.pem").read_text()
        (folder / "keys/trust.toml").write_text(f'[[key]]\nname = "soak"\npublic = """\n{public}"""\n')
        self.expected, self.versions = {}, []
        for seed, precision in enumerate(["fp32", "fp8", "bf16"]):
            name = f"run{seed}"
            (folder / f"{name}.toml").write_text(RECIPE.format(seed=seed))
            self.run("train", f"{name}.toml", "--precision", precision, "--out", name)
            if seed < 2:
                self.versions.append(self.add(name, precision))

    def run(self, *args):
        done = subprocess.run([self.program, *args], cwd=self.folder, env=self.env, capture_output=True, text=True)
        if done.returncode:
            fault(f"{' '.join(args)} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def add(self, run, precision):
        digest = json.loads(self.run("registry", "add", run, "--as", "m", "--sign", "--json"))["digest"]
        offline = json.loads(self.run("predict", run, "images", "--precision", precision, "--json"))
        rows = []
        for prediction in offline["predictions"]:
            logits = {likely["class"]: likely["logit"] for likely in prediction["top"]}
            rows.append(struct.pack(f"<{CLASSES}f", *(logits[str(c)] for c in range(CLASSES))))
        self.expected[digest] = rows
        return digest

    def promote(self, digest):
        self.run("registry", "promote", f"m@{digest[:16]}", "--force", "soak")

    def kill_a_writer(self):
        """Kills a command that writes to the registry, at any point of it."""
        run = ["registry", "add", "run2", "--as", "m", "--sign"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        writer = subprocess.Popen([self.program, *run], cwd=self.folder, env=self.env, **quiet)
        time.sleep(self.random.uniform(0.0, 0.3))
        writer.kill()
        writer.wait()
        self.run("registry", "verify")


class Server:
    """The server at one port, which is started anew when it was ended."""

    def __init__(self, place):
        self.place = place
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = (place.folder / "server.log").open("w")
        # When the script had ended it: from the signal to the first line of the next one.
        self.down = []
        self.start()

    def start(self):
        args = ["serve", "m@champion", "--registry", "registry", "--batch-invariant", "--json", "--drain", "5s"]
        self.process = subprocess.Popen(
            [self.place.program, *args, "--listen", f"127.0.0.1:{self.port}"],
            cwd=self.place.folder,
            env=self.place.env,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        if not self.process.stdout.readline():
            fault(f"the server ended with {self.process.wait()}")

    def end(self, by):
        begun = time.monotonic()
        self.down.append([begun, float("inf")])
        self.process.send_signal(by)
        code = self.process.wait()
        if code != (0 if by == signal.SIGTERM else -by):
            fault(f"the server ended with {code} by {by.name}")
        self.start()
        self.down[-1][1] = time.monotonic()
        return self.down[-1][1] - begun


class Client(threading.Thread):
    """Sends one request after another, of every form."""

    def __init__(self, number, place, port, forms):
        super().__init__(daemon=True)
        self.place, self.port, self.forms = place, port, forms
        self.random = random.Random(number + 1)
        self.answers, self.failures, self.ended = [], [], False
        self.connection = self.grpc = None

    def run(self):
        while not self.ended:
            form = self.random.choice(self.forms)
            chosen = [self.random.randrange(IMAGES) for _ in range(self.random.choice([1, 1, 2, 3, 7, 16, 33]))]
            begun = time.monotonic()
            try:
                version, logits = getattr(self, form)(chosen)
            except Exception as error:  # of every client: each is a request without an answer
                # That a server was ended since it was connected to is found out when it is used.
                stale = isinstance(error, ConnectionError) and self.connection is not None
                since = min(begun, self.connected) if stale else begun
                self.failures.append((begun, time.monotonic(), f"{form}: {type(error).__name__}: {error}", since))
                self.connection = self.grpc = None
                time.sleep(0.02)
                continue
            self.answers.append((begun, time.monotonic(), form, version, len(chosen)))
            rows = self.place.expected.get(version)
            if rows is None:
                fault(f"an answer names the version {version}, which was never deployed")
            elif logits != b"".join(rows[image] for image in chosen):
                fault(f"{form}: logits of version {version[:12]} differ from those of predict, for images {chosen}")
            time.sleep(self.random.uniform(0, 0.02))

    def post(self, body, headers):
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            self.connected = time.monotonic()
        self.connection.request("POST", "/v2/models/m/infer", body, headers)
        reply = self.connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise OSError(f"status {reply.status}: {body[:200]}")
        return reply, body

    def head(self, chosen, more, output):
        tensor = {"name": "pixels", "datatype": "UINT8", "shape": [len(chosen), 8, 8, 1]}
        return json.dumps({"inputs": [tensor | more], "outputs": [{"name": "logits"} | output]}).encode()

    def json(self, chosen):
        data = list(b"".join(self.place.images[image] for image in chosen))
        _, body = self.post(self.head(chosen, {"data": data}, {}), {})
        answer = json.loads(body)
        values = answer["outputs"][0]["data"]
        return answer["model_version"], struct.pack(f"<{len(values)}f", *values)

    def binary(self, chosen):
        data = b"".join(self.place.images[image] for image in chosen)
        head = self.head(chosen, {"parameters": {"binary_data_size": len(data)}}, {"parameters": {"binary_data": True}})
        reply, body = self.post(head + data, {"Inference-Header-Content-Length": str(len(head))})
        length = int(reply.getheader("Inference-Header-Content-Length"))
        return json.loads(body[:length])["model_version"], body[length:]

    def grpc_call(self, chosen):
        import numpy
        import tritonclient.grpc as grpc

        if self.grpc is None:
            # A connection of its own: one that is shared waits a second before it is tried again.
            alone = [("grpc.use_local_subchannel_pool", 1)]
            self.grpc = grpc.InferenceServerClient(f"127.0.0.1:{self.port}", channel_args=alone)
        data = b"".join(self.place.images[image] for image in chosen)
        pixels = grpc.InferInput("pixels", [len(chosen), 8, 8, 1], "UINT8")
        pixels.set_data_from_numpy(numpy.frombuffer(data, numpy.uint8).reshape(-1, 8, 8, 1))
        answer = self.grpc.infer("m", [pixels], outputs=[grpc.InferRequestedOutput("logits")], client_timeout=20)
        return answer.get_response().model_version, answer.as_numpy("logits").tobytes()


class Soak:
    """What happens while the clients send."""

    def __init__(self, place, forms):
        self.place = place
        place.promote(place.versions[0])
        self.server = Server(place)
        self.clients = [Client(number, place, self.server.port, forms) for number in range(CLIENTS)]
        self.times = {}
        # From the start of a rollback to the first answer of the old version.
        self.rollbacks = []

    def until_answered(self, version, since):
        """Seconds from `since` until a version answered."""
        while time.monotonic() < since + 30:
            for client in self.clients:
                for _, ended, _, answered, _ in reversed(client.answers):
                    if ended < since:
                        break
                    if answered == version:
                        return ended - since
            time.sleep(0.005)
        fault(f"version {version[:12]} does not answer within 30 s")
        return float("inf")

    def timed(self, what, version, act):
        begun = time.monotonic()
        act()
        took = self.until_answered(version, begun)
        self.times.setdefault(what, []).append(took)
        return begun, begun + took

    def roll_back(self, what, version):
        act = lambda: self.place.run("registry", "rollback", "m@champion", "--reason", "soak")
        self.rollbacks.append((what, *self.timed(what, version, act)))

    def cycle(self):
        one, two = self.place.versions
        self.timed("deploy", two, lambda: self.place.promote(two))
        time.sleep(self.place.random.uniform(0.2, 1.5))
        self.roll_back("rollback", one)
        time.sleep(self.place.random.uniform(0.2, 1.0))
        self.timed("deploy again", two, lambda: self.place.promote(two))
        self.times.setdefault("start after kill -9", []).append(self.server.end(signal.SIGKILL))
        self.until_answered(two, time.monotonic())
        self.place.kill_a_writer()
        self.roll_back("rollback after a restart", one)
        self.times.setdefault("drain and start", []).append(self.server.end(signal.SIGTERM))
        self.until_answered(one, time.monotonic())

    def run(self, seconds):
        for client in self.clients:
            client.start()
        begun = time.monotonic()
        cycles = 0
        while time.monotonic() < begun + seconds and len(faults) < 20:
            self.cycle()
            cycles += 1
        for client in self.clients:
            client.ended = True
        for client in self.clients:
            client.join(30)
        self.server.process.send_signal(signal.SIGTERM)
        if self.server.process.wait() != 0:
            fault("the server did not end with 0")
        self.judge(cycles, time.monotonic() - begun)

    def judge(self, cycles, seconds):
        answers = [answer for client in self.clients for answer in client.answers]
        failures = [failure for client in self.clients for failure in client.failures]
        # A client may learn of the end of its connection a little later than the script ended it.
        accounted = [f for f in failures if any(f[3] <= up and f[1] >= down for down, up in self.server.down)]
        for failure in failures:
            if failure not in accounted:
                fault(f"a request failed, and nothing was killed or ended then: {failure[2]}")
        # A connection to a server that was ended before has nothing to do with the rollback.
        own = [f for f in failures if f[3] == f[0] or f not in accounted]
        for what, begun, ended in self.rollbacks:
            failed = [why for start, end, why, _ in own if start <= ended and end >= begun]
            if failed:
                fault(f"at a {what} {len(failed)} requests failed: {failed[0]}")
            if ended - begun >= 1:
                fault(f"a {what} took {ended - begun:.2f} s to the first answer of the old version")
        log = pathlib.Path(self.server.log.name).read_text()
        for event in ["panicked", "version_refused", "move_refused", "source_unreadable"]:
            if event in log:
                fault(f"the server's log has `{event}`: {next(line for line in log.splitlines() if event in line)}")
        by = {}
        for _, _, form, version, samples in answers:
            by.setdefault(form, []).append(samples)
        forms = ", ".join(f"{form} {len(counts)} ({sum(counts)} samples)" for form, counts in sorted(by.items()))
        print(f"{seconds:.0f} s, {cycles} cycles; answers: {len(answers)}: {forms}")
        print(f"requests without an answer: {len(failures)}, all but {len(failures) - len(accounted)} while the server was killed or ended")
        for what, took in self.times.items():
            print(f"{what}: {len(took)} times, median {statistics.median(took):.3f} s, most {max(took):.3f} s")


def main():
    if "--here" not in sys.argv:
        if len(sys.argv) not in (2, 4):
            sys.exit(__doc__)
        try:
            here, forms = python("tritonclient"), "json binary grpc_call"
        except SystemExit:
            here, forms = sys.executable, "json binary"
            print("requests over gRPC are left out")
        sys.exit(subprocess.run([here, __file__, *sys.argv[1:], "--here", forms]).returncode)
    at = sys.argv.index("--here")
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 60
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(folder))
        if not faults:
            Soak(place, sys.argv[at + 1].split()).run(seconds)
    print(f"{len(faults)} faults")
    sys.exit(1 if faults else 0)


main()
