#!/usr/bin/env bash
# Fetches NVRTC, the compiler of CUDA kernels, from PyPI into a folder, and prints its file: what
# HALFSTEP_NVRTC takes. It needs neither a GPU nor a driver, and is under NVIDIA's licence.
#
#   export HALFSTEP_NVRTC=$(scripts/fetch_nvrtc.sh [FOLDER])    # target/nvrtc if no folder is named
#
# The version is pinned: another one may make other code of the same kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/nvrtc}
library=$folder/nvidia/cu13/lib/libnvrtc.so.13
if [ ! -f "$library" ]; then
    fetched=$(mktemp -d)
    trap 'rm -rf "$fetched"' EXIT
    scripts/fetch_wheel.sh nvidia-cuda-nvrtc==13.0.88 \
        ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 "$fetched/files"
    mkdir -p "$folder"
    cp -r "$fetched/files/." "$folder/"
fi
realpath "$library"
