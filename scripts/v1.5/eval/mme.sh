#!/usr/bin/env bash
# MME: pairs of yes-or-no questions per picture; perception and cognition.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/mme.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks

source scripts/common/benchmark.sh
folder=$EVAL_DIR/MME
results=$folder/answers/$CKPT
need "$folder/llava_mme.jsonl" "$folder/MME_Benchmark_release_version"
answer model_vqa_loader "$folder/llava_mme.jsonl" "$results/merge.jsonl" \
    --image-folder "$folder/MME_Benchmark_release_version" "$@"
run_python llava.eval.eval_mme --mme-dir "$folder/MME_Benchmark_release_version" --answers "$results/merge.jsonl" \
    --out "$folder/eval_tool/answers/$CKPT" --results-dir "$results"
