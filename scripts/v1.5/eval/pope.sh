#!/usr/bin/env bash
# POPE: is a thing in the picture, yes or no? F1 and accuracy per kind of negative question.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/pope.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks

source scripts/common/benchmark.sh
folder=$EVAL_DIR/pope
results=$folder/answers/$CKPT
need "$folder/llava_pope_test.jsonl" "$folder/val2014" "$folder/coco"
answer model_vqa_loader "$folder/llava_pope_test.jsonl" "$results/merge.jsonl" --image-folder "$folder/val2014" "$@"
run_python llava/eval/eval_pope.py --annotation-dir "$folder/coco" --question-file "$folder/llava_pope_test.jsonl" \
    --result-file "$results/merge.jsonl" --results-dir "$results"
