#!/usr/bin/env bash
# What is learned and what is forgotten: LoRA beside full fine-tuning over learning rates, ranks and seeds, the naive recipe beside
# the default one, and the shuffled control. Goes on where it stopped; finished runs are kept.
#   SEEDS="0 1 2" JOBS=2 bash scripts/v1.5/learn_forget.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

SEEDS=${SEEDS:-0 1 2}                          # people, order and initialisation all follow from the seed
IDENTITIES=${IDENTITIES:-6}
RECIPES=${RECIPES:-default naive}
LORA_RATES=${LORA_RATES:-5e-4 1e-3 2e-3 4e-3}  # learning rates of LoRA ...
FULL_RATES=${FULL_RATES:-2e-4 5e-4 1e-3 2e-3}  # ... and of full fine-tuning
RANKS=${RANKS:-64}                             # ranks of LoRA; alpha is twice the rank
CONTROL=${CONTROL:-1}                          # 1 = also a run on shuffled names per seed
JOBS=${JOBS:-2}                                # runs side by side, one thread each
export RUNS=${RUNS_ROOT:-playground/mini_world/runs/learn_forget}

source scripts/common/mini_world.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# one_run NAME METHOD RECIPE SEED RATE RANK
one_run() {
    local seed=$4
    export LORA_R=$6 LORA_ALPHA=$(($6 * 2))
    train_run "$1" "$2" "$3" "$seed" "$5"
    evaluate_run "$1" "$RUNS/$1/checkpoint"
    rm -f "$RUNS/$1/checkpoint/"*.safetensors # the scores stay; a sweep's weights would fill the disk
    echo "== $1: done"
}

pids=()

# start_run: one_run in the background, as soon as there is a place
start_run() {
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do sleep 1; done
    in_background one_run "$@"
    pids+=($!)
}

for seed in $SEEDS; do
    export DATA_DIR=$RUNS/data/seed$seed # each run in the background keeps the one it was started with
    python -m playground.mini_world.make_people --seed "$seed" --identities "$IDENTITIES" --out "$DATA_DIR"
    record_run "base-seed$seed" base "" "" "" "" "$BASE" scripts/v1.5/eval/personal.sh
    evaluate_run "base-seed$seed" "$BASE"
    for recipe in $RECIPES; do
        for rate in $LORA_RATES; do
            for rank in $RANKS; do
                start_run "lora-$recipe-r$rank-lr$rate-seed$seed" lora "$recipe" "$seed" "$rate" "$rank"
            done
        done
        for rate in $FULL_RATES; do
            start_run "full-$recipe-lr$rate-seed$seed" full "$recipe" "$seed" "$rate" 64
        done
    done
    if [ "$CONTROL" = 1 ]; then
        start_run "lora-shuffled-seed$seed" lora shuffled "$seed" "$LORA_LEARNING_RATE" 64
    fi
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
if [ "$failed" -gt 0 ]; then
    echo "$failed of ${#pids[@]} runs failed, see above; the same command tries them again." >&2
    exit 1
fi
python -m llava.eval.report --runs "$RUNS" --data "$RUNS/data/seed${SEEDS%% *}" --out "$RUNS/report.html"
