#!/usr/bin/env bash
# Train the baseline, each innovation alone, and both; then evaluate them. What is finished is kept.
USAGE='train_ablation.sh [NUM_GPUS=4] [OUTPUT_ROOT=output/ablation] [KEY VALUE ...]'
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/common.sh"

VARIANTS=(oft hpa_only afr_only enhanced)

split_arguments 2 "$@"
gpus=${POSITIONAL[0]:-4}
root=${POSITIONAL[1]:-$ROOT/output/ablation}
check_gpus "$gpus"
for name in "${VARIANTS[@]}"; do
    train_once "$gpus" "configs/vitb_384_$name.yaml" "$root/$name"
done
for name in "${VARIANTS[@]}"; do
    evaluate "$gpus" "configs/vitb_384_$name.yaml" "$root/$name/model_final.pth"
done
