#!/usr/bin/env bash
# Unpacks a package of PyPI, pinned by its hash, into a new folder.
#
#   scripts/fetch_wheel.sh NAME==VERSION SHA256 FOLDER
set -euo pipefail
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
echo "$1 --hash=sha256:$2" > "$fetched/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --platform manylinux_2_17_x86_64 --platform manylinux2010_x86_64 --dest "$fetched" \
    --requirement "$fetched/requirements.txt" >&2
python3 -m zipfile --extract "$fetched"/*.whl "$3"
