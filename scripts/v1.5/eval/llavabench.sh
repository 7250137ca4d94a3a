#!/usr/bin/env bash
# LLaVA-Bench in the wild: long answers, scored by a judge model beside GPT-4's.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/llavabench.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
JUDGE_RULE=${JUDGE_RULE:-llava/eval/table/rule.json}   # how to judge, per kind of question; ours

source scripts/common/benchmark.sh
source scripts/common/judge.sh
folder=$EVAL_DIR/llava-bench-in-the-wild
results=$folder/answers/$CKPT
reviews=$folder/reviews/$CKPT.jsonl
need "$folder/questions.jsonl" "$folder/images" "$folder/context.jsonl" "$folder/answers_gpt4.jsonl"
answer model_vqa "$folder/questions.jsonl" "$results/merge.jsonl" --image-folder "$folder/images" "$@"
need_judge "$results/merge.jsonl"
run_python llava/eval/eval_gpt_review_bench.py --question "$folder/questions.jsonl" --context "$folder/context.jsonl" \
    --rule "$JUDGE_RULE" --answer-list "$folder/answers_gpt4.jsonl" "$results/merge.jsonl" \
    --output "$reviews" "${judge_flags[@]}"
run_python llava/eval/summarize_gpt_review.py -f "$reviews" --question-file "$folder/questions.jsonl" \
    --answers-file "$results/merge.jsonl" --results-dir "$results"
