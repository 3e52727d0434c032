#!/usr/bin/env python3
"""Eight processes change one registry, and commands are killed (SIGKILL) at random. Then nothing may be lost.

    cargo build --release --features serve
    python3 scripts/soak_registry.py target/release/halfstep [--workers 8] [--operations 1000] [--killed 0.15] [--seed 0]

Each worker calls `add`, `promote --force`, `rollback`, `gc` (which keeps nothing beyond what it has to), `attach`, `show`, `list`, `diff` and
`verify` in random order, about one model; half of them share what was seen of the registry. A share of the commands is killed at a random time within the
usual duration of one. Versions differ in their recipe alone, so that they share most of their files. Meanwhile a hold keeps a few versions, as a
server's does. Of the answers of commands that ended by themselves, and of the database, read here by SQLite and not by halfstep, it is checked that

* no command fails but for the reasons that it may have here (its version was collected, an alias is there already or has no way back), and none
  says that the registry is wrong;
* the moves are numbered from 1 without gaps, each holds the digest of the one before it, and, of its alias, the number and version of the one before it;
* every move and version that was acknowledged is there, as it was acknowledged;
* every file of every version that was not collected, and of every attachment, is there with its bytes; what an alias or the hold has was not collected;
* `halfstep registry verify` finds nothing wrong, and when all is idle, a last `gc` leaves no file that belongs to nothing.

The exit code is 1 where something is not so.
"""

import argparse
import collections
import fcntl
import hashlib
import json
import os
import pathlib
import random
import sqlite3
import subprocess
import tempfile
import threading
import time

RECIPE = """
name = "soak"
[data]
kind = "bundled"
name = "digits"
[model]
kind = "mlp"
hidden = [4]
[train]
steps = 2
batch = 8
[precision]
policy = "fp32"
"""
MODEL = "net"
VARIANTS = 24  # of each worker, and as many that all of them add
HELD = 3

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("program", type=lambda path: pathlib.Path(path).resolve())
parser.add_argument("--workers", type=int, default=8)
parser.add_argument("--operations", type=int, default=1000)
parser.add_argument("--killed", type=float, default=0.15)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

place = pathlib.Path(tempfile.mkdtemp(prefix="soak-registry-"))
registry = place / "registry"
begun = time.time()
lock = threading.Lock()
faults, counts, moves, versions, lasted = [], collections.Counter(), {}, set(), [0.05]
# What a command may say: its version was collected, or the alias moved meanwhile.
EXPECTED = ["has no files here", "already", "nothing to go back to", "is not in this registry"]


def environment(worker):
    state = "shared" if worker % 2 == 0 else f"state-{worker}"
    return {**os.environ, "HALFSTEP_REGISTRY": str(registry), "XDG_STATE_HOME": str(place / state), "HALFSTEP_KEYS": str(place / "keys"), "NO_COLOR": "1"}


def fault(text):
    with lock:
        faults.append(text)
        print("WRONG:", text, flush=True)


def command(worker, chance, *words):
    """Runs a command, or kills it. Returns what it printed as JSON, if it ended well by itself."""
    started = time.time()
    child = subprocess.Popen([args.program, "registry", *words, "--json"], cwd=place, env=environment(worker), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if chance.random() < args.killed:
        time.sleep(chance.random() * 1.2 * lasted[0])
        child.kill()
    out, err = child.communicate()
    with lock:
        counts[words[0]] += 1
        if child.returncode == -9:
            counts["killed"] += 1
            return None
        lasted[0] = 0.95 * lasted[0] + 0.05 * (time.time() - started)
    if child.returncode == 0:
        return json.loads(out)
    said = " ".join(err.replace("│", " ").split())
    if words[0] == "verify" or "panicked" in said or not any(text in said for text in EXPECTED):
        fault(f"worker {worker}, {' '.join(words)}: exit code {child.returncode}: {said} {out}")
    else:
        with lock:
            counts["refused"] += 1
    return None


def acknowledged(answer):
    for move in answer.get("moves", []) + [answer[key] for key in ["candidate"] if key in answer]:
        # A `candidate` that was there already is printed again, without the digest.
        with lock:
            moves.setdefault(move["number"], []).append(move)


def work(worker):
    chance = random.Random(f"{args.seed}-{worker}")
    known = []
    for _ in range(args.operations):
        what = chance.choices(["add", "promote", "rollback", "gc", "show", "list", "attach", "diff", "verify"], [24, 22, 16, 8, 8, 6, 6, 6, 4])[0]
        if what == "add" or not known:
            owner = chance.choice([worker, "all"])
            run = f"runs/{owner}-{chance.randrange(VARIANTS)}"
            answer = command(worker, chance, "add", run, "--as", MODEL)
            if answer:
                known.append(answer["digest"])
                with lock:
                    versions.add(answer["digest"])
                acknowledged(answer)
            continue
        version = f"{MODEL}@{chance.choice(known[-40:])}"
        alias = chance.choice(["champion", "champion", "canary"])
        answer = None
        if what == "promote":
            answer = command(worker, chance, "promote", version, "--to", alias, "--force", "soak")
        elif what == "rollback":
            answer = command(worker, chance, "rollback", f"{MODEL}@{alias}", "--reason", "soak")
        elif what == "gc":
            command(worker, chance, "gc", "--keep-days", "0", "--grace-hours", "0")
        elif what == "show":
            command(worker, chance, "show", chance.choice([version, f"{MODEL}@{alias}"]))
        elif what == "list":
            command(worker, chance, "list")
        elif what == "attach":
            card = place / f"card-{worker}-{chance.randrange(50)}"
            card.write_text(str(card))
            command(worker, chance, "attach", version, "--card", card)
        elif what == "diff":
            command(worker, chance, "diff", version, f"{MODEL}@candidate")
        else:
            command(worker, chance, "verify")
        if answer:
            acknowledged(answer)


def make_runs():
    (place / "recipe.toml").write_text(RECIPE)
    subprocess.run([args.program, "train", "recipe.toml", "--out", "run"], cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for owner in [*range(args.workers), "all"]:
        for variant in range(VARIANTS):
            run = place / f"runs/{owner}-{variant}"
            run.mkdir(parents=True)
            for file in (place / "run").rglob("*"):
                if file.is_file():
                    target = run / file.relative_to(place / "run")
                    target.parent.mkdir(exist_ok=True)
                    if file.name == "recipe.toml":
                        target.write_text(f"{file.read_text()}\n# {owner} {variant}\n")
                    else:
                        os.link(file, target)


def hold():
    """Holds the first versions, as the crate `registry` does: a locked file under the database's write lock."""
    digests = []
    for variant in range(HELD):
        answer = json.loads(subprocess.run([args.program, "registry", "add", f"runs/all-{variant}", "--as", MODEL, "--json"], cwd=place, env=environment(0), check=True, capture_output=True).stdout)
        digests.append(answer["digest"])
        acknowledged(answer)
    versions.update(digests)
    db = sqlite3.connect(registry / "registry.db", isolation_level=None, timeout=30)
    db.execute("BEGIN IMMEDIATE")
    file = open(registry / "holds/soak", "x")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(json.dumps([{"model": MODEL, "digest": digest} for digest in digests]))
    file.flush()
    db.execute("COMMIT")
    db.close()
    return digests, file


def check(held):
    db = sqlite3.connect(registry / "registry.db")
    rows = db.execute("SELECT number, sha256, record FROM move ORDER BY number").fetchall()
    before, latest, heads = None, {}, {}
    for at, (number, sha256, text) in enumerate(rows, 1):
        record = json.loads(text)
        alias = (record["model"], record["alias"])
        if number != at or record["number"] != at:
            fault(f"move {number} is at place {at} of the history")
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            fault(f"move {number}: its record has another digest")
        if record["after"] != before:
            fault(f"move {number} does not name the move before it")
        if (record["previous"], record["from"]) != latest.get(alias, (None, None)):
            fault(f"move {number} does not follow the move of its alias before it")
        before, latest[alias], heads[alias] = sha256, (number, record["to"]), record["to"]
        for told in moves.get(number, []):
            if {key: told[key] for key in record} != record:
                fault(f"move {number} was acknowledged as another: {told}")
    for number in moves:
        if number > len(rows):
            fault(f"move {number} was acknowledged and is lost")
    there = dict(db.execute("SELECT digest, removed FROM version WHERE model = ?", [MODEL]))
    for digest in versions - set(there):
        fault(f"version {digest} was acknowledged and is lost")
    for digest in [*held, *heads.values()]:
        if there.get(digest, "") is not None:
            fault(f"version {digest}, which is held or has an alias, was collected")
    contents = {sha for (sha,) in db.execute("SELECT sha256 FROM file JOIN version USING (model, digest) WHERE removed IS NULL UNION SELECT sha256 FROM attachment")}
    for content in contents:
        path = registry / "blobs" / content
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != content:
            fault(f"the file {content} is lost or damaged")
    return rows, there, contents


def main():
    make_runs()
    held, file = hold()
    workers = [threading.Thread(target=work, args=[worker]) for worker in range(args.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.time() - begun
    calm = random.Random(0)
    args.killed = 0
    rows, there, _ = check(held)
    command(0, calm, "verify")
    # What killed processes left behind counts as such a minute later.
    now = time.time() - 120
    for left in (registry / "blobs").glob(".unfinished-*"):
        os.utime(left, (now, now))
    command(0, calm, "gc", "--keep-days", "0", "--grace-hours", "0")
    _, _, contents = check(held)
    for path in (registry / "blobs").iterdir():
        if path.name not in contents:
            fault(f"{path.name} belongs to nothing and is left")
    command(0, calm, "verify")
    file.close()
    operations = sum(n for what, n in counts.items() if what not in ["killed", "refused"])
    collected = sum(removed is not None for removed in there.values())
    print(
        f"{operations} commands by {args.workers} processes in {seconds:.0f} s, {counts['killed']} killed, {counts['refused']} refused as they may be;"
        f" {len(rows)} moves, {len(moves)} of them acknowledged; {len(there)} versions, {collected} of them collected at the end"
    )
    print({what: n for what, n in sorted(counts.items())})
    print("nothing was lost" if not faults else f"{len(faults)} things are wrong; the registry is {registry}")
    raise SystemExit(bool(faults))


main()
