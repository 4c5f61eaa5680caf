#!/usr/bin/env bash
# Train and evaluate the baseline, each innovation alone, and both, then print the results table.
# What is finished is kept; another seed goes into another folder:
#   train_ablation.sh 4 output/ablation_seed1 SEED 1
USAGE='train_ablation.sh [NUM_GPUS=4] [OUTPUT_ROOT=output/ablation] [KEY VALUE ...]'
source "$(dirname -- "${BASH_SOURCE[0]}")/tools/common.sh"

VARIANTS=(oft hpa_only afr_only enhanced)

split_arguments 2 "$@"
gpus=${POSITIONAL[0]:-4}
root=${OUTPUT:-${POSITIONAL[1]:-$ROOT/output/ablation}}
check_gpus "$gpus"
check_benchmarks

step=
trap 'status=$?; ((status == 0)) || echo "unfinished: $step; what is done is kept, the same command goes on from there" >&2' EXIT
failed=()
for index in "${!VARIANTS[@]}"; do
    name=${VARIANTS[index]}
    step="variant $name ($((index + 1)) of ${#VARIANTS[@]})"
    echo "$step"
    train_once "$gpus" "configs/vitb_384_$name.yaml" "$root/$name"
    status=0
    evaluate "$gpus" "configs/vitb_384_$name.yaml" "$root/$name/model_final.pth" || status=$?
    ((status < 128)) || exit "$status" # interrupted
    # A benchmark that cannot be evaluated does not keep the other variants from training.
    ((status == 0)) || failed+=("$name")
done
step="the results table"
run "$PYTHON" "$ROOT/tools/collect_results.py" "$root" \
    --output "$root/results.md" --chart "$root/results.png"
step="the evaluation of ${failed[*]-}"
((${#failed[@]} == 0))
