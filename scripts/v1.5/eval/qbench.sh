#!/usr/bin/env bash
# Q-Bench (A1): choices about how good a picture is.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/qbench.sh dev
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-llava_v1}                       # conversation template, as for the published figures
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
SPLIT=${1:-dev}                                        # dev (scored here) or test
if [ "$#" -gt 0 ]; then shift; fi

source scripts/common/benchmark.sh
folder=$EVAL_DIR/qbench
questions=$folder/llvisionqa_$SPLIT.json
results=$folder/answers/$SPLIT/$CKPT
need "$questions" "$folder/images_llvisionqa"
answer model_vqa_qbench "$questions" "$results/merge.jsonl" --image-folder "$folder/images_llvisionqa" --lang en "$@"
upload=$folder/answers_upload/$SPLIT/$CKPT.jsonl
score=(llava.eval.eval_qbench --question-file "$questions" --result-file "$results/merge.jsonl" --submission-file "$upload")
if [ "$SPLIT" = dev ]; then
    run_python "${score[@]}" --results-dir "$results" --lang en
else
    run_python "${score[@]}"
    echo "$SPLIT has no right answers; Q-Bench's authors score $upload"
fi
