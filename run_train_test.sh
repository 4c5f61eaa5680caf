#!/usr/bin/env bash
# Train HyperCLIP, or the model of CONFIG, then evaluate it on every benchmark on disk.
# Run it again to resume where it stopped.
USAGE='run_train_test.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_hyperbolic.yaml] [OUTPUT_DIR=output/NAME of vitb_384_NAME.yaml] [KEY VALUE ...]'
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/common.sh"

split_arguments 3 "$@"
gpus=${POSITIONAL[0]:-4}
config=${POSITIONAL[1]:-configs/vitb_384_hyperbolic.yaml}
check_gpus "$gpus"
check_config "$config"
check_benchmarks
output=${OUTPUT:-${POSITIONAL[2]:-$(output_of "$config")}}
train_once "$gpus" "$config" "$output"
evaluate "$gpus" "$config" "$output/model_final.pth"
