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
# into POSITIONAL, the rest, KEY VALUE pairs, into OVERRIDES.
split_arguments() {
    local most=$1
    shift
    POSITIONAL=()
    OVERRIDES=()
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
        OVERRIDES+=("$1" "$2")
        shift 2
    done
}

check_gpus() {
    [[ $1 =~ ^[1-9][0-9]*$ ]] || fail "NUM_GPUS is '$1'; give a whole number from 1 on"
}

# Relative paths of configs are also looked up from the repository root, as in train_net.py.
check_config() {
    [[ -f $1 || -f $ROOT/$1 ]] || fail "there is no config '$1'; see configs/"
}

check_weights() {
    [[ -f $1 || -f $ROOT/$1 ]] || fail "there are no weights '$1'; give a .pth or .safetensors file"
}

# Runs a command, passes SIGTERM and Ctrl-C on to it as SIGTERM, and waits until it has ended.
run() {
    local status=0
    "$@" &
    CHILD=$!
    trap 'kill -TERM "$CHILD" 2>/dev/null || true' INT TERM
    while kill -0 "$CHILD" 2>/dev/null; do
        status=0
        wait "$CHILD" || status=$?
    done
    trap - INT TERM
    return "$status"
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

# evaluate NUM_GPUS CONFIG WEIGHTS: on every benchmark on disk, into the folder eval beside WEIGHTS.
evaluate() {
    run "$PYTHON" "$ROOT/tools/evaluate_benchmarks.py" --num-gpus "$1" --config-file "$2" \
        MODEL.WEIGHTS "$3" OUTPUT_DIR "$(dirname -- "$3")/eval" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
}
