#!/usr/bin/env bash
# What a model kept of the base's skills; answered and scored.
#   MODEL_PATH=checkpoints/mine DATA_DIR=playground/data/mine bash scripts/v1.5/eval/retention.sh
# DATA_DIR holds images/, questions/retention.jsonl and truth.jsonl (as playground.mini_world.make_people writes them).
set -euo pipefail
cd "$(dirname "$0")/../../.."

MODEL_PATH=${MODEL_PATH:?set MODEL_PATH to the checkpoint folder}
DATA_DIR=${DATA_DIR:?set DATA_DIR to the folder with images, questions and truth.jsonl}
RUN_DIR=${RUN_DIR:-$MODEL_PATH/eval}     # answers and scores go here
BATCH_SIZE=${BATCH_SIZE:-auto}           # questions decoded together; changes no answer

source scripts/common/benchmark.sh
mkdir -p "$RUN_DIR/answers"
answer model_vqa_loader "$DATA_DIR/questions/retention.jsonl" "$RUN_DIR/answers/retention.jsonl" --image-folder "$DATA_DIR/images"
run_python llava.eval.score_personal --truth "$DATA_DIR/truth.jsonl" --part retention \
    --answers "$RUN_DIR/answers/retention.jsonl" --out "$RUN_DIR/scores_retention.json" --results-dir "$RUN_DIR/retention"
