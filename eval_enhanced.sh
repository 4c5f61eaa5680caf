#!/usr/bin/env bash
# Evaluate one set of weights on every benchmark on disk; benchmarks that are done are kept.
# The results go into OUTPUT_DIR, if given, else beside the weights: into eval for model_final.pth,
# eval_NAME for any other NAME.pth.
USAGE='eval_enhanced.sh CONFIG WEIGHTS [NUM_GPUS=1] [OUTPUT_DIR FOLDER] [KEY VALUE ...]'
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/common.sh"

split_arguments 3 "$@"
((${#POSITIONAL[@]} >= 2)) || fail "CONFIG and WEIGHTS are needed"
gpus=${POSITIONAL[2]:-1}
check_config "${POSITIONAL[0]}"
check_weights "${POSITIONAL[1]}"
check_gpus "$gpus"
evaluate "$gpus" "${POSITIONAL[0]}" "$WEIGHTS" "$OUTPUT"
