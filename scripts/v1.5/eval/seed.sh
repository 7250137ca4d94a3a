#!/usr/bin/env bash
# SEED-Bench: choices about pictures and about the middle frame of videos; accuracy per type.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/seed.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks

source scripts/common/benchmark.sh
folder=$EVAL_DIR/seed_bench
results=$folder/answers/$CKPT
need "$folder/llava-seed-bench.jsonl" "$folder/SEED-Bench.json" "$folder/SEED-Bench-image" "$folder/SEED-Bench-video-image"
answer model_vqa_loader "$folder/llava-seed-bench.jsonl" "$results/merge.jsonl" --image-folder "$folder" "$@"
run_python scripts/convert_seed_for_submission.py --annotation-file "$folder/SEED-Bench.json" \
    --result-file "$results/merge.jsonl" --result-upload-file "$folder/answers_upload/$CKPT.jsonl" --results-dir "$results"
