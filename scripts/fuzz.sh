#!/usr/bin/env bash
# Runs every parser that strangers can reach on changed inputs, one target after the other; CI runs
# a thousand inputs of each. Stops at the first input that a parser fails on, and prints it.
#
#   scripts/fuzz.sh [SECONDS]    # of each target [default: 600]
set -euo pipefail
cd "$(dirname "$0")/.."
export HALFSTEP_FUZZ_SECONDS=${1:-600}
export HALFSTEP_FUZZ_SEED=${HALFSTEP_FUZZ_SEED:-$(date +%s)}
echo "HALFSTEP_FUZZ_SEED=$HALFSTEP_FUZZ_SEED"
cargo test --release -p halfstep-attest -p halfstep-serve -p halfstep-data --features halfstep-data/bpe --test fuzz -- --nocapture --test-threads 1
# What a server prepares of a client's tensors is part of the program.
cargo test --release -p halfstep --features serve --bin halfstep fuzz_ -- --nocapture --test-threads 1
