# shellcheck shell=bash
# Sourced by the scripts in the repository root, which set USAGE first.

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$ROOT/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python
fi

fail() {
    printf 'error: %s\nusage: %s\n' "$1" "$USAGE" >&2
    exit 2
}

is_key() {
    [[ $1 =~ ^[A-Z0-9_]+(\.[A-Z0-9_]+)+$ || $1 == SEED || $1 == OUTPUT_DIR ]]
}

# split_arguments MOST ARGUMENT...: the first arguments, up to MOST and up to the first config key,
# into POSITIONAL, the rest, KEY VALUE pairs, into OVERRIDES; the value of OUTPUT_DIR into OUTPUT.
split_arguments() {
    local most=$1
    shift
    POSITIONAL=()
    OVERRIDES=()
    OUTPUT=
    while (($#)) && ((${#POSITIONAL[@]} < most)) && ! is_key "$1"; do
        if [[ $1 == -h || $1 == --help ]]; then
            printf 'usage: %s\n' "$USAGE"
            exit 0
        fi
        POSITIONAL+=("$1")
        shift
    done
    while (($#)); do
        is_key "$1" || fail "expected a config key such as SOLVER.MAX_ITER, not '$1'"
        (($# > 1)) || fail "the value of $1 is missing"
        if [[ $1 == OUTPUT_DIR ]]; then
            OUTPUT=$2
        else
            OVERRIDES+=("$1" "$2")
        fi
        shift 2
    done
}

check_gpus() {
    [[ $1 =~ ^[1-9][0-9]*$ ]] || fail "NUM_GPUS is '$1'; give a whole number from 1 on"
}

# Relative paths are also looked up from the repository root, as in train_net.py.
check_config() {
    [[ -f $1 || -f $ROOT/$1 ]] || fail "there is no config '$1'; see configs/"
}

# check_weights FILE: the file that this means into WEIGHTS.
check_weights() {
    WEIGHTS=$1
    [[ -f $WEIGHTS || $WEIGHTS == /* ]] || WEIGHTS=$ROOT/$1
    [[ -f $WEIGHTS ]] || fail "there are no weights '$1'; give a .pth or .safetensors file"
}

# Before days of training: is there anything to evaluate on afterwards?
check_benchmarks() {
    "$PYTHON" -c '
import sys
sys.path.insert(0, sys.argv[1])
from cat_seg.data import BENCHMARKS, datasets_root, is_on_disk
from cat_seg.errors import fail
if not any(is_on_disk(benchmark.dataset) for benchmark in BENCHMARKS):
    fail(f"no benchmark to evaluate on is in {datasets_root()}; see datasets/README.md, "
         "or train alone with train_enhanced.sh")
' "$ROOT"
}

# Runs a command, passes SIGTERM and Ctrl-C on to it as SIGTERM, and waits until it has ended.
run() {
    local status signalled=0
    "$@" &
    CHILD=$!
    trap 'signalled=143; kill -TERM "$CHILD" 2>/dev/null || true' INT TERM
    while :; do # a signal ends the waiting, but not yet the command
        status=0
        wait "$CHILD" || status=$?
        kill -0 "$CHILD" 2>/dev/null || break
    done
    trap - INT TERM
    ((status)) || status=$signalled # it may have been done already: the script still stops
    return "$status"
}

# output_of CONFIG: where it trains by default, as output/enhanced for vitb_384_enhanced.yaml.
output_of() {
    local name
    name=$(basename -- "$1" .yaml)
    printf '%s\n' "$ROOT/output/${name#vitb_384_}"
}

# train NUM_GPUS CONFIG OUTPUT_DIR: train with OVERRIDES; goes on where an earlier run stopped.
train() {
    local resume=()
    [[ ! -e $3/last_checkpoint ]] || resume=(--resume)
    run "$PYTHON" "$ROOT/train_net.py" --num-gpus "$1" --config-file "$2" \
        ${resume[@]+"${resume[@]}"} OUTPUT_DIR "$3" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
}

# train_once NUM_GPUS CONFIG OUTPUT_DIR: train, unless that is finished.
train_once() {
    if [[ -e $3/model_final.pth ]]; then
        echo "$3/model_final.pth is there: not trained again"
    else
        train "$@"
    fi
}

# evaluate NUM_GPUS CONFIG WEIGHTS [OUTPUT_DIR]: on every benchmark on disk, by default into the
# folder eval beside a model_final.pth, eval_NAME beside other weights, so that each keeps its
# results; what OVERRIDES says on MODEL.WEIGHTS was for the training.
evaluate() {
    local name output
    name=$(basename -- "$3")
    output=$(dirname -- "$3")/eval
    [[ $name == model_final.* ]] || output+=_${name%.*}
    run "$PYTHON" "$ROOT/tools/evaluate_benchmarks.py" --num-gpus "$1" --config-file "$2" \
        ${OVERRIDES[@]+"${OVERRIDES[@]}"} \
        MODEL.WEIGHTS "$3" OUTPUT_DIR "${4:-$output}"
}
