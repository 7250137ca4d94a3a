#!/usr/bin/env bash
# TextVQA, validation: reading in pictures; soft accuracy over ten people's answers.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/textvqa.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks

source scripts/common/benchmark.sh
folder=$EVAL_DIR/textvqa
results=$folder/answers/$CKPT
need "$folder/llava_textvqa_val_v051_ocr.jsonl" "$folder/train_images" "$folder/TextVQA_0.5.1_val.json"
answer model_vqa_loader "$folder/llava_textvqa_val_v051_ocr.jsonl" "$results/merge.jsonl" \
    --image-folder "$folder/train_images" "$@"
run_python llava.eval.eval_textvqa --annotation-file "$folder/TextVQA_0.5.1_val.json" \
    --result-file "$results/merge.jsonl" --results-dir "$results"
