#!/usr/bin/env bash
# Checks and times the GPU engine on a machine with a GPU that has no Rust: what is run there is
# built before.
#
#   scripts/gpu.sh pack DIR          # here: builds the program and its tests for GPUs into DIR
#   scripts/gpu.sh check DIR OUT     # there, in three minutes: writes OUT/gpu.json and OUT/gpu.log
#   scripts/gpu.sh time DIR OUT [ARGUMENTS]     # there, in six minutes: OUT/time.json, OUT/gpu.log
#
# Both need this repository, python3 and NVRTC, and torch for what is held against PyTorch.
# ARGUMENTS go to scripts/beside_torch.py. Each part has its own time; one that fails or runs out
# of time does not end the others, and the exit code is 1 then. `scripts/gpu_report.py docs OUT`
# makes the tables of docs/gpu.md of time.json.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf '%s\n' "$*" >&2; exit 1; }

pack() {
    local to=$1 tests
    mkdir -p "$to"
    cargo build --release -p halfstep
    tests=$(cargo test --release -p halfstep-gpu --test gpu --no-run --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable") and message["target"]["name"] == "gpu":
        print(message["executable"])')
    cp target/release/halfstep "$to/halfstep"
    cp "$tests" "$to/gpu"
    strip "$to/halfstep" "$to/gpu"
    du -sh "$to"
}

# A part by name, seconds and command: one line of parts.jsonl, and its output in the log.
part() {
    local name=$1 seconds=$2 begun code=0
    shift 2
    printf '\n== %s: %s\n' "$name" "$*" >> "$out/gpu.log"
    begun=$(date +%s.%N)
    timeout "$seconds" "$@" > "$out/$name.out" 2>> "$out/gpu.log" || code=$?
    cat "$out/$name.out" >> "$out/gpu.log"
    python3 - "$name" "$code" "$begun" "$(date +%s.%N)" >> "$out/parts.jsonl" <<'PYTHON'
import json, sys
name, code, begun, ended = sys.argv[1:]
print(json.dumps({"part": name, "code": int(code), "seconds": round(float(ended) - float(begun), 2)}))
PYTHON
    printf '%-12s %s\n' "$name" "$([ "$code" = 0 ] && echo passed || echo "FAILED ($code)")"
}

check() {
    rm -rf "$out/parts.jsonl" "$out/gpu.log" "$out"/run-*
    export HALFSTEP_CACHE=$out/cache
    cat > "$out/steps.toml" <<'RECIPE'
[data]
kind = "bundled"
name = "digits"
[model]
kind = "mlp"
hidden = [64, 64]
[train]
steps = 200
batch = 32
RECIPE
    part info 20 "$dir/halfstep" info --json
    part roofs 30 python3 scripts/gpu_roofs.py
    part sums 20 python3 scripts/gpu_sums.py "$out/sums.json"
    part simulated 10 python3 scripts/gpu_sums.py --compare "$out/sums.json"
    part conformance 120 "$dir/gpu" --test-threads 16
    for device in cuda cpu; do
        part "$device" 30 "$dir/halfstep" train "$out/steps.toml" --device "$device" --precision fp32 --json \
            --out "$out/run-$device"
    done
    if command -v compute-sanitizer > /dev/null; then
        sed 's/^steps = .*/steps = 3/' "$out/steps.toml" > "$out/few.toml"
        part sanitizer 60 compute-sanitizer --error-exitcode 9 \
            "$dir/halfstep" train "$out/few.toml" --device cuda --precision fp32 --json --out "$out/run-sanitizer"
    fi
    part losses 10 python3 scripts/gpu_report.py losses "$out"
    python3 scripts/gpu_report.py write "$out"
}

# PyTorch begins nothing behind its deadline, and what it has begun ends some time after.
time_steps() {
    rm -rf "$out/parts.jsonl" "$out/gpu.log"
    export HALFSTEP_CACHE=$out/cache TORCHINDUCTOR_CACHE_DIR=$out/inductor
    part info 20 "$dir/halfstep" info --json
    part roofs 30 python3 scripts/gpu_roofs.py
    part steps 310 python3 scripts/beside_torch.py --device cuda --halfstep "$dir/halfstep" --seconds 1.5 --deadline 300 "$@"
    python3 scripts/gpu_report.py write "$out" time.json
}

command=${1:-}
case "$command" in
    pack) [ $# = 2 ] || fail "usage: scripts/gpu.sh pack DIR"; pack "$2" ;;
    check)
        [ $# = 3 ] || fail "usage: scripts/gpu.sh check DIR OUT"
        mkdir -p "$3"
        dir=$(cd "$2" && pwd) out=$(cd "$3" && pwd)
        check
        ;;
    time)
        [ $# -ge 3 ] || fail "usage: scripts/gpu.sh time DIR OUT [ARGUMENTS]"
        mkdir -p "$3"
        dir=$(cd "$2" && pwd) out=$(cd "$3" && pwd)
        time_steps "${@:4}"
        ;;
    *) fail "usage: scripts/gpu.sh pack DIR | check DIR OUT | time DIR OUT [ARGUMENTS]" ;;
esac
