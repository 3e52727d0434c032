#!/usr/bin/env bash
# Checks `halfstep` under MPI with ranks on this machine. Needs Open MPI.
#
#   scripts/check_mpi.sh HALFSTEP     # a program built with --features mpi
set -euo pipefail

halfstep=$(realpath "$1")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# Ranks share cores here: those that wait let others work.
ranks() { local n=$1; shift; mpirun -n "$n" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$halfstep" --threads 1 "$@"; }
alone() { "$halfstep" --threads 1 "$@"; }
# What two JSON objects say of the same key, and whether they are so close.
close() {
    python3 - "$@" <<'PY'
import json, sys
a, b, key, tolerance = sys.argv[1:]
def value(path):
    v = json.load(open(path))
    for k in key.split("."):
        v = v[k]
    return v
x, y = value(a), value(b)
print(f"   {key}: {x} {y}")
sys.exit(abs(x - y) > float(tolerance) * abs(x))
PY
}
# The numbers of a log, less its times.
numbers() { sed -E 's/"(time|ms)":[0-9.e+-]+//g' "$1/metrics.jsonl"; }

recipe() { # name, model, steps, the rest of [train]
    cat > "$1.toml" <<TOML
seed = 1
[data]
kind = "bundled"
name = "digits"
[model]
$2
[optimiser]
kind = "sgd"
lr = 0.05
[train]
steps = $3
batch = 32
$4
[precision]
policies = ["fp32", "bf16"]
[compare]
seeds = 2
TOML
}
recipe mlp $'kind = "mlp"\nhidden = [64]' 60 'evaluate_every = 20'
recipe half $'kind = "mlp"\nhidden = [64]' 60 $'evaluate_every = 20\nreduce = "bf16"'
recipe norm $'kind = "resnet18"\nwidth = 4' 6 'evaluate_every = 6'
recipe long $'kind = "mlp"\nhidden = [64]' 100000 $'evaluate_every = 1000\n[checkpoint]\nevery = 50'

say "one rank is no rank, bit for bit"
for precision in fp32 bf16 fp16; do
    alone train mlp.toml --precision $precision --out alone-$precision --json > alone-$precision.json
    ranks 1 train mlp.toml --precision $precision --out one-$precision --json > /dev/null
    cmp <(numbers alone-$precision) <(numbers one-$precision) || fail "one rank has other losses than no MPI in $precision"
    cmp {alone,one}-$precision/checkpoints/final.safetensors || fail "one rank has other weights than no MPI in $precision"
done

say "two and three ranks agree with one process, to rounding"
# The first ten losses differ by the order of f32 sums alone: 32 rows, 2 ranks. In a low format, a
# number at the border between two codes falls the other way sooner or later; from then on the runs
# differ as two roundings of one run do: by a few units of the format (2^-11 in fp16; bf16 that
# travels has 2^-8, and is fed back).
for precision in fp32 bf16 fp16; do
    ranks 2 train mlp.toml --precision $precision --out two-$precision --json > two-$precision.json
    python3 - {alone,two}-$precision/metrics.jsonl <<'PY' || fail "the first steps of two ranks in $precision"
import json, sys
one, two = ([json.loads(line) for line in open(path)][:10] for path in sys.argv[1:])
apart = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(one, two))
print(f"   first ten losses: {apart:.1e} apart")
sys.exit(apart > 34 * 2**-24)
PY
done
ranks 2 train half.toml --precision fp32 --out half --json > half.json
close alone-fp32.json two-fp32.json train_loss 1e-5 || fail "two ranks in fp32"
close alone-fp32.json two-fp32.json test.loss 1e-5 || fail "two ranks in fp32, evaluation"
close alone-fp16.json two-fp16.json train_loss 2e-3 || fail "two ranks in fp16"
close alone-bf16.json two-bf16.json train_loss 16e-3 || fail "two ranks in bf16"
close alone-fp32.json half.json train_loss 16e-3 || fail "two ranks in fp32 that exchange bf16"
alone train norm.toml --precision fp32 --out norm1 --json > norm1.json
ranks 2 train norm.toml --precision fp32 --out norm2 --json > norm2.json
close norm1.json norm2.json train_loss 1e-4 || fail "two ranks with batch norm"
ranks 2 train mlp.toml --precision fp32 --out again --json > /dev/null
cmp <(numbers two-fp32) <(numbers again) || fail "two ranks twice"

say "a batch that three ranks cannot share is refused"
if ranks 3 train mlp.toml --out uneven > uneven.txt 2>&1; then fail "it was not"; fi
grep -q "cannot be shared by 3 ranks" uneven.txt || { cat uneven.txt; fail "no clear error"; }
[ ! -e uneven ] || fail "it wrote something"

say "a rank that is killed ends the job; the last checkpoint is good for any number of ranks"
ranks 2 train long.toml --precision fp16 --out killed > killed.txt 2>&1 &
job=$!
for _ in $(seq 300); do
    [ "$(ls killed/checkpoints 2>/dev/null | grep -c '^step-')" -ge 2 ] && break
    kill -0 $job 2> /dev/null || { cat killed.txt; fail "the job ended by itself"; }
    sleep 0.1
done
# A shell runs mpirun, which runs the ranks; the last of them is killed.
children=$(pgrep -P "$(pgrep -P $job | head -1)")
kill -9 "$(tail -1 <<< "$children")"
if wait $job; then fail "the job ended well without one of its ranks"; fi
for pid in $children; do
    # One that has ended may wait for its parent to notice.
    for _ in $(seq 100); do grep -qs '^State:[^Z]*$' "/proc/$pid/status" || break; sleep 0.1; done
    if grep -qs '^State:[^Z]*$' "/proc/$pid/status"; then fail "rank $pid outlived the job"; fi
done
for n in 1 2; do
    cp -r killed killed-$n
    ranks $n train --resume killed-$n --max-time 1s > resumed.txt 2>&1 || [ $? = 75 ] || { cat resumed.txt; fail "not with $n ranks"; }
    grep -q "^Resuming " resumed.txt || { cat resumed.txt; fail "$n ranks began anew"; }
done
alone train --resume killed --max-time 1s > resumed.txt 2>&1 || [ $? = 75 ] || { cat resumed.txt; fail "not without MPI"; }

say "runs of a comparison are spread over ranks"
# Exit codes are verdicts.
HALFSTEP_CACHE=$PWD/cache1 alone compare mlp.toml --out compared1 --json > compared1.json || [ $? = 2 ]
HALFSTEP_CACHE=$PWD/cache2 ranks 2 compare mlp.toml --out compared2 --json > compared2.json 2> compared2.txt || [ $? = 2 ]
python3 - <<'PY' || fail "other results"
import json
one, two = (json.load(open(f"compared{n}.json")) for n in (1, 2))
runs = lambda c: [(r["policy"], r["seed"], r["train_loss"], [(e["step"], e["loss"]) for e in r["evaluations"]]) for r in c["arms"][0]["runs"]]
assert len(runs(one)) == 4 and runs(one) == runs(two), (runs(one), runs(two))
PY
[ "$(ls compared2/checkpoints | wc -l)" = 4 ] || fail "models are missing"

say "all checks under MPI passed"
