#!/usr/bin/env bash
# Train and evaluate the baseline, each innovation alone, and both, then print the results table.
# Finished steps are kept. Use a separate folder for each seed:
#   train_ablation.sh 4 output/ablation_seed1 SEED 1
#   train_ablation.sh [NUM_GPUS=4] [OUTPUT_ROOT=output/ablation] [KEY VALUE ...]
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/scripts.sh" train_ablation "$@"
