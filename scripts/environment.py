"""Environments of Python for the scripts beside this one, each with the packages that one of them compares with."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def skip(why):
    """Ends the script, which cannot run here."""
    print(f"skipped: {why}")
    sys.exit(0)


def python(name):
    """The Python in target/NAME, which has the packages of scripts/requirements/NAME.txt."""
    there = ROOT / "target" / name / "bin/python"
    if not there.exists():
        made = subprocess.run([sys.executable, "-m", "venv", there.parent.parent], capture_output=True, text=True)
        if made.returncode:
            skip(f"no environment for {name} can be made: {made.stderr.strip()}")
    wanted = ROOT / "scripts/requirements" / f"{name}.txt"
    installed = subprocess.run([there, "-m", "pip", "install", "-q", "-r", wanted], capture_output=True, text=True)
    if installed.returncode:
        skip(f"the packages of {name} cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    return there
