#!/usr/bin/env bash
# VQAv2: the file for the challenge's server; accuracy where the answers are public (SPLIT=llava_vqav2_mscoco_val2014).
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/vqav2.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
SPLIT=${SPLIT:-llava_vqav2_mscoco_test-dev2015}        # question file without .jsonl

source scripts/common/benchmark.sh
folder=$EVAL_DIR/vqav2
results=$folder/answers/$SPLIT/$CKPT
case $SPLIT in
*val2014*)
    pictures=$folder/val2014
    truth=("$folder/v2_OpenEnded_mscoco_val2014_questions.json" "$folder/v2_mscoco_val2014_annotations.json")
    ;;
*) pictures=$folder/test2015 truth=("$folder/llava_vqav2_mscoco_test2015.jsonl") ;; # all questions that the server asks
esac
questions=$folder/$SPLIT.jsonl
if [ "${#truth[@]}" = 2 ] && [ -e "${truth[0]}" ] && [ ! -e "$questions" ]; then
    run_python scripts/convert_vqa_to_llava.py --questions "${truth[0]}" --dst "$questions"
fi
need "$questions" "$pictures" "${truth[@]}"
answer model_vqa_loader "$questions" "$results/merge.jsonl" --image-folder "$pictures" "$@"
if [ "${#truth[@]}" = 2 ]; then
    run_python llava.eval.eval_vqa --questions "${truth[0]}" --annotations "${truth[1]}" --answers "$results/merge.jsonl" \
        --results-dir "$results"
else
    run_python scripts/convert_vqav2_for_submission.py --dir "$folder" --split "$SPLIT" --ckpt "$CKPT"
    echo "to be scored by VQAv2's server: $folder/answers_upload/$SPLIT/$CKPT.json"
fi
