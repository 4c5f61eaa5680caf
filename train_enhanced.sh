#!/usr/bin/env bash
# Train HPS-Seg; started again, it goes on where it stopped.
USAGE='train_enhanced.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_enhanced.yaml] [OUTPUT_DIR=output/NAME of vitb_384_NAME.yaml] [KEY VALUE ...]'
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/common.sh"

split_arguments 3 "$@"
gpus=${POSITIONAL[0]:-4}
config=${POSITIONAL[1]:-configs/vitb_384_enhanced.yaml}
check_gpus "$gpus"
check_config "$config"
train "$gpus" "$config" "${OUTPUT:-${POSITIONAL[2]:-$(output_of "$config")}}"
