#!/usr/bin/env bash
# MM-Vet: long answers, scored by a judge model against short reference answers; per skill and in all.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/mmvet.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
JUDGE_PROMPT=${JUDGE_PROMPT:-}                         # file with MM-Vet's own prompt; empty: ours

source scripts/common/benchmark.sh
source scripts/common/judge.sh
folder=$EVAL_DIR/mm-vet
results=$folder/answers/$CKPT
need "$folder/llava-mm-vet.jsonl" "$folder/images" "$folder/mm-vet.json"
answer model_vqa "$folder/llava-mm-vet.jsonl" "$results/merge.jsonl" --image-folder "$folder/images" "$@"
run_python scripts/convert_mmvet_for_eval.py --src "$results/merge.jsonl" --dst "$folder/results/$CKPT.json"
need_judge "$folder/results/$CKPT.json"
if [ -n "$JUDGE_PROMPT" ]; then judge_flags+=(--prompt "$JUDGE_PROMPT"); fi
run_python llava.eval.eval_mmvet --mm-vet-file "$folder/mm-vet.json" --result-file "$folder/results/$CKPT.json" \
    --answers-file "$results/merge.jsonl" --output "$folder/results/${CKPT}_judged.json" --results-dir "$results" \
    "${judge_flags[@]}"
