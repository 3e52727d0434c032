#!/usr/bin/env bash
# All proofs of the GPU engine that need no GPU: an hour or more. CI runs a part of them, each kind
# of code once: `cargo test --release -p halfstep-gpu --features simulator`.
#
#   scripts/gpu_proofs.sh
#
# Conformance, steps of models, products, attention and budgets in every precision on both
# architectures that are simulated; each barrier, wait, fence and guard of products, softmax and
# attention taken out in turn, which writes a table of docs/gpu.md; and every kernel assembled for
# every target, which writes another.
set -euo pipefail
cd "$(dirname "$0")/.."
HALFSTEP_NVRTC=$(scripts/fetch_nvrtc.sh)
export HALFSTEP_NVRTC HALFSTEP_CONFORMANCE=all HALFSTEP_MUTATIONS=all
export HALFSTEP_MUTATIONS_TABLE=$PWD/docs/gpu.md
cargo test --release -p halfstep-gpu --features simulator
scripts/gpu_kernels.sh --all
