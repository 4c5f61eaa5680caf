#!/usr/bin/env bash
# Train HPS-Seg, or the model of CONFIG. Run the same command again to resume.
#   train_enhanced.sh [NUM_GPUS=4] [CONFIG=configs/vitb_384_enhanced.yaml] [OUTPUT_DIR=output/NAME for vitb_384_NAME.yaml] [KEY VALUE ...]
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/scripts.sh" train_enhanced "$@"
