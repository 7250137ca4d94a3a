#!/usr/bin/env bash
# GQA, test-dev balanced: what is where in a picture; accuracy, and the file for GQA's own program.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/gqa.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
SPLIT=${SPLIT:-llava_gqa_testdev_balanced}             # question file without .jsonl
TIER=${TIER:-testdev_balanced}                         # GQA's name for it

source scripts/common/benchmark.sh
folder=$EVAL_DIR/gqa
results=$folder/answers/$SPLIT/$CKPT
truth=$folder/data/${TIER}_questions.json
if [ ! -e "$truth" ]; then truth=$folder/data/questions1.2/${TIER}_questions.json; fi # as GQA's archive unpacks
need "$folder/$SPLIT.jsonl" "$folder/data/images" "$truth"
answer model_vqa_loader "$folder/$SPLIT.jsonl" "$results/merge.jsonl" --image-folder "$folder/data/images" "$@"
run_python scripts/convert_gqa_for_eval.py --src "$results/merge.jsonl" --dst "$results/${TIER}_predictions.json"
run_python llava.eval.eval_gqa --questions "$truth" --answers "$results/merge.jsonl" --results-dir "$results"
