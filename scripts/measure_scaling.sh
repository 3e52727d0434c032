#!/usr/bin/env bash
# What docs/scale-out.md predicts from, measured on this machine: the step of one rank with half of
# a batch, that of two ranks with the whole, and sums between two ranks. One thread each. For a
# quiet machine with two cores.
#
#   cargo build --release --features mpi --bin halfstep --example all_reduce
#   scripts/measure_scaling.sh target/release recipes/shakespeare-gpt.toml
set -euo pipefail

program=$(realpath "$1")
recipe=$(realpath "$2")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Twelve steps of the recipe with another batch and a constant rate; no evaluation among them.
short() {
    python3 - "$recipe" "$1" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
text = re.sub(r"\[schedule\][^\[]*", "", text)
text = re.sub(r"(?m)^(steps|epochs|evaluate_every) *=.*\n", "", text)
batch = int(re.search(r"(?m)^batch *= *(\d+)", text)[1])
text = re.sub(r"(?m)^batch *=.*", f"batch = {batch // int(sys.argv[2])}\nsteps = 12\nevaluate_every = 1000", text)
print(text)
PY
}
milliseconds() { # name: median and least of its steps, the first left out
    python3 - "$1" <<'PY'
import json, sys
ms = [line["ms"] for line in map(json.loads, open(sys.argv[1] + "/metrics.jsonl")) if line["event"] == "step"][1:]
print(f"{sys.argv[1]}: median {sorted(ms)[len(ms) // 2]:.1f} ms, least {min(ms):.1f} ms a step")
PY
}
short 1 > whole.toml
short 2 > half.toml
for precision in fp32 bf16; do
    "$program/halfstep" --threads 1 train half.toml --precision $precision --out half-$precision > /dev/null 2>&1
    mpirun -n 2 --bind-to core "$program/halfstep" --threads 1 train whole.toml --precision $precision --out two-$precision > /dev/null 2>&1
    milliseconds half-$precision
    milliseconds two-$precision
done
"$program/halfstep" explain whole.toml --ranks 2 --stage diff | grep -o 'f32\[[0-9]*\] = all_reduce_start' \
    | tr -dc '0-9\n' | awk '{ bytes += 4 * substr($0, 3); sums++ } END { print sums " sums of " bytes " bytes in all" }'
mpirun -n 2 --bind-to core "$program/examples/all_reduce"
