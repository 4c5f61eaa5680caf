#!/usr/bin/env bash
# Evaluate one set of weights on every benchmark on disk; finished benchmarks are kept.
# Results go to OUTPUT_DIR if given, else to a folder beside the weights: eval for model_final.pth,
# eval_NAME for any other NAME.pth. BENCHMARKS MESS evaluates on MESS instead of the six benchmarks.
#   eval_enhanced.sh CONFIG WEIGHTS [NUM_GPUS=1] [OUTPUT_DIR FOLDER] [BENCHMARKS NAME,...]
#                    [KEY VALUE ...]
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/scripts.sh" eval_enhanced "$@"
