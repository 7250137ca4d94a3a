#!/usr/bin/env bash
# The whole story on a fresh machine: install, draw six new people, teach them to the mini world's LLaVA with LoRA and with full
# fine-tuning, ask base and both what they know and what they forgot, and write the report.
#   SEED=1 IDENTITIES=4 bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."

SEED=${SEED:-0}
IDENTITIES=${IDENTITIES:-6}
RUNS=${RUNS:-playground/mini_world/runs/quickstart}
DATA_DIR=${DATA_DIR:-$RUNS/data}
NAIVE=${NAIVE:-0}           # 1 = also the naive recipe (positives only), for comparison
export DATA_DIR RUNS

source scripts/common/setup_environment.sh
setup_environment report
source scripts/common/mini_world.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

SECONDS=0
say() { printf '== %3d s  %s\n' "$SECONDS" "$*"; }

say "drawing $IDENTITIES people (seed $SEED)"
python -m playground.mini_world.make_people --seed "$SEED" --identities "$IDENTITIES" --out "$DATA_DIR"

say "training: LoRA and full, side by side"
in_background train_run "lora" lora default "$SEED" "$LORA_LEARNING_RATE"; lora=$!
in_background train_run "full" full default "$SEED" "$FULL_LEARNING_RATE"; full=$!
wait "$lora"; wait "$full"
if [ "$NAIVE" = 1 ]; then
    in_background train_run "lora-naive" lora naive "$SEED" "$LORA_LEARNING_RATE"; lora=$!
    in_background train_run "full-naive" full naive "$SEED" "$FULL_LEARNING_RATE"; full=$!
    wait "$lora"; wait "$full"
fi

say "asking the base model and both pupils"
record_run base base "" "" "" "" "$BASE" scripts/v1.5/eval/personal.sh
in_background evaluate_run base "$BASE"; base=$!
in_background evaluate_run lora "$RUNS/lora/checkpoint"; lora=$!
wait "$base"; wait "$lora"
in_background evaluate_run full "$RUNS/full/checkpoint"; full=$!
if [ "$NAIVE" = 1 ]; then
    evaluate_run lora-naive "$RUNS/lora-naive/checkpoint"
    evaluate_run full-naive "$RUNS/full-naive/checkpoint"
fi
wait "$full"

say "report"
python -m llava.eval.report --runs "$RUNS" --data "$DATA_DIR" --out "$RUNS/report.html"
say "done: $RUNS/report.html"
