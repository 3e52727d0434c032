#!/usr/bin/env bash
# Fetches ptxas, NVIDIA's assembler of PTX, from PyPI into a folder, and prints its file: what
# HALFSTEP_PTXAS takes. It needs neither a GPU nor a driver, and is under NVIDIA's licence.
#
#   export HALFSTEP_PTXAS=$(scripts/fetch_ptxas.sh [FOLDER])    # target/ptxas if no folder is named
#
# The version is that of NVRTC in fetch_nvrtc.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/ptxas}
program=$folder/nvidia/cu13/bin/ptxas
if [ ! -x "$program" ]; then
    fetched=$(mktemp -d)
    trap 'rm -rf "$fetched"' EXIT
    scripts/fetch_wheel.sh nvidia-cuda-nvcc==13.0.88 \
        56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03 "$fetched/files"
    mkdir -p "$(dirname "$program")"
    # Moved into place whole.
    cp "$fetched/files/nvidia/cu13/bin/ptxas" "$program.$$"
    chmod +x "$program.$$"
    mv "$program.$$" "$program"
    cp -r "$fetched"/files/*.dist-info "$folder/"
fi
realpath "$program"
