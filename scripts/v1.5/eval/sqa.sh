#!/usr/bin/env bash
# ScienceQA, test: questions with and without a picture, answered with an option's letter.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/sqa.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks

source scripts/common/benchmark.sh
folder=$EVAL_DIR/scienceqa
results=$folder/answers/$CKPT
need "$folder/llava_test_CQM-A.json" "$folder/images/test" "$folder/problems.json" "$folder/pid_splits.json"
answer model_vqa_science "$folder/llava_test_CQM-A.json" "$results/merge.jsonl" \
    --image-folder "$folder/images/test" --single-pred-prompt "$@"
run_python llava/eval/eval_science_qa.py --base-dir "$folder" --result-file "$results/merge.jsonl" \
    --output-file "$results/${CKPT}_output.jsonl" --output-result "$results/${CKPT}_result.json" --results-dir "$results"
