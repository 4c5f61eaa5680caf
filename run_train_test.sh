#!/usr/bin/env bash
# Train HyperCLIP, or the model of CONFIG, then evaluate it on every benchmark on disk.
# Run the same command again to resume.
#   run_train_test.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_hyperbolic.yaml] [OUTPUT_DIR=output/NAME for vitb_384_NAME.yaml] [KEY VALUE ...]
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/scripts.sh" run_train_test "$@"
