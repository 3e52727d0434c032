#!/usr/bin/env python3
"""Signs with halfstep and verifies with model-signing, and the other way round.

    cargo build --features serve
    python3 scripts/check_signing.py target/debug/halfstep

model-signing comes from PyPI into target/model-signing, with the versions of scripts/requirements/model-signing.txt (95 MB). What
cannot run here is skipped and named, and the exit code is then 0 all the same; it is 1 where the two disagree.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from environment import python, skip

faults = []


def run(*args, **options):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, **options)


def expect(what, result, code):
    agrees = (result.returncode == 0) == (code == 0)
    print(("as expected" if agrees else "NOT AS EXPECTED") + f": {what}: {'accepted' if result.returncode == 0 else 'refused'}")
    if not agrees:
        faults.append(f"{what}\n{result.stdout}{result.stderr}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = pathlib.Path(sys.argv[1]).resolve()
    if run(program, "key", "--help").returncode:
        skip(f"{program} is built without the feature serve")
    if shutil.which("openssl") is None:
        skip("openssl, which makes keys on the other curves, is not installed")
    peer = [python("model-signing"), "-m", "model_signing"]
    place = pathlib.Path(tempfile.mkdtemp())
    model = place / "model"
    (model / "sub").mkdir(parents=True)
    (model / "weights.bin").write_bytes(bytes(range(256)) * 999)
    (model / "sub/config.json").write_text("{}")
    (model / "empty").write_bytes(b"")
    (model / ".gitignore").write_text("never signed")

    assert run(program, "key", "new", "--no-passphrase", "--out", place / "own.pem").returncode == 0
    signed = run(program, "sign", model, "--key", place / "own.pem", "--ignore", "sub")
    assert signed.returncode == 0, signed.stderr
    ours = [*peer, "verify", "key", "--signature", model / "model.sig", "--public_key", place / "own.pub.pem", model]
    expect("signed by halfstep, verified by model-signing", run(*ours), 0)
    (model / "weights.bin").write_bytes(bytes(range(256)) * 998)
    expect("changed since, verified by model-signing", run(*ours), 1)
    expect("changed since, verified by halfstep", run(program, "verify", model, "--key", place / "own.pub.pem"), 1)

    for curve in ["prime256v1", "secp384r1", "secp521r1"]:
        key, public, signature = place / f"{curve}.pem", place / f"{curve}.pub.pem", place / f"{curve}.sig"
        assert run("openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", key).returncode == 0
        assert run("openssl", "ec", "-in", key, "-pubout", "-out", public).returncode == 0
        signed = run(*peer, "sign", "key", "--private_key", key, "--signature", signature, "--ignore-paths", model / "model.sig", model)
        assert signed.returncode == 0, signed.stderr
        own = lambda key: run(program, "verify", model, "--signature", signature, "--key", key)
        expect(f"signed by model-signing on {curve}, verified by halfstep", own(public), 0)
        expect(f"the same with another key ({curve})", own(place / "own.pub.pem"), 1)
    shutil.rmtree(place)
    print("\n".join(faults))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
