#!/usr/bin/env bash
# MMBench in Chinese: choices about pictures; accuracy of the dev split, and the sheet for the server.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/mmbench_cn.sh
# Flags behind the script's name go to the answering program. Where the data come from: docs/evaluation.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}  # checkpoint that is asked
BATCH_SIZE=${BATCH_SIZE:-auto}                         # questions decoded together; changes no answer
CONV_MODE=${CONV_MODE:-}                               # conversation template; empty: the checkpoint's own
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}           # folder of all benchmarks
SPLIT=${SPLIT:-mmbench_dev_cn_20231003}                # table without .tsv
ALL_ROUNDS=${ALL_ROUNDS:-0}                            # 1 = ask in every order of the options (circular evaluation)

source scripts/common/benchmark.sh
folder=$EVAL_DIR/mmbench_cn
table=$folder/$SPLIT.tsv
results=$folder/answers/$SPLIT/$CKPT
answers=$results/$CKPT.jsonl # the converter names its file after this one
need "$table"
flags=(--lang cn --single-pred-prompt)
if [ "$ALL_ROUNDS" = 1 ]; then flags+=(--all-rounds); fi
answer model_vqa_mmbench "$table" "$answers" "${flags[@]}" "$@"
run_python scripts/convert_mmbench_for_submission.py --annotation-file "$table" --result-dir "$results" \
    --upload-dir "$folder/answers_upload/$SPLIT" --experiment "$CKPT"
if has_column answer "$table"; then
    run_python llava.eval.eval_mmbench --annotation-file "$table" --result-file "$answers" --results-dir "$results" --lang cn
else
    echo "$SPLIT has no right answers; its server scores $folder/answers_upload/$SPLIT/$CKPT.xlsx"
fi
