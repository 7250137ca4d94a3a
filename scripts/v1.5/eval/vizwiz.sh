#!/usr/bin/env bash
# VizWiz: the file for the challenge's server; accuracy where the answers are public (SPLIT=val).
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/vizwiz.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
SPLIT=${SPLIT:-test}                                   # test or val: llava_SPLIT.jsonl, pictures in SPLIT/

source scripts/common/benchmark.sh
folder=$EVAL_DIR/vizwiz
results=$folder/answers/$SPLIT/$CKPT
upload=$folder/answers_upload/$CKPT.json
if [ "$SPLIT" != test ]; then upload=$folder/answers_upload/$SPLIT/$CKPT.json; fi
questions=$folder/llava_$SPLIT.jsonl
annotations=$folder/$SPLIT.json
if [ "$SPLIT" != test ] && [ -e "$annotations" ] && [ ! -e "$questions" ]; then
    run_python scripts/convert_vqa_to_llava.py --questions "$annotations" --dst "$questions"
fi
need "$questions" "$folder/$SPLIT"
answer model_vqa_loader "$questions" "$results/merge.jsonl" --image-folder "$folder/$SPLIT" "$@"
run_python scripts/convert_vizwiz_for_submission.py --annotation-file "$questions" \
    --result-file "$results/merge.jsonl" --result-upload-file "$upload"
if [ "$SPLIT" != test ] && [ -e "$annotations" ]; then
    run_python llava.eval.eval_vqa --annotations "$annotations" --questions "$questions" \
        --answers "$results/merge.jsonl" --results-dir "$results"
else
    echo "to be scored by VizWiz' server: $upload"
fi
