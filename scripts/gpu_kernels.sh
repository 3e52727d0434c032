#!/usr/bin/env bash
# Assembles kernels for every architecture, and writes the table of docs/gpu.md.
#
#   scripts/gpu_kernels.sh           # those of the steps of the measured models: some minutes
#   scripts/gpu_kernels.sh --all     # and all that the conformance suite asks for: an hour or more
set -euo pipefail
cd "$(dirname "$0")/.."
HALFSTEP_NVRTC=$(scripts/fetch_nvrtc.sh)
HALFSTEP_PTXAS=$(scripts/fetch_ptxas.sh)
export HALFSTEP_NVRTC HALFSTEP_PTXAS HALFSTEP_GPU_KERNELS=$PWD/docs/gpu.md
if [ "${1:-}" = --all ]; then
    export HALFSTEP_GPU_KERNELS_OF=conformance
fi
cargo test --release -p halfstep-gpu --features simulator --test targets
