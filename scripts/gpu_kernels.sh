#!/usr/bin/env bash
# Assembles every kernel for every architecture, and writes the table of docs/gpu.md: some minutes.
#
#   scripts/gpu_kernels.sh
set -euo pipefail
cd "$(dirname "$0")/.."
HALFSTEP_NVRTC=$(scripts/fetch_nvrtc.sh)
HALFSTEP_PTXAS=$(scripts/fetch_ptxas.sh)
export HALFSTEP_NVRTC HALFSTEP_PTXAS HALFSTEP_GPU_KERNELS=$PWD/docs/gpu.md
cargo test --release -p halfstep-gpu --features simulator --test targets
