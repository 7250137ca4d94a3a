# shellcheck shell=bash
# Sourced: the mini world's settings for the training and evaluation scripts, and one run from training to scores.

BASE=${BASE:-playground/mini_world/base}

# The recipe that the mini world was tuned for; the scripts' own defaults are those of LLaVA-1.5-7B.
export BATCH_SIZE=${BATCH_SIZE:-64} EPOCHS=${EPOCHS:-4} MODEL_MAX_LENGTH=${MODEL_MAX_LENGTH:-512}
export IMAGE_ASPECT_RATIO=pad BF16=${BF16:-True} WORKERS=${WORKERS:-0} SAVE_STRATEGY=${SAVE_STRATEGY:-no}
export LOGGING_STEPS=${LOGGING_STEPS:-5} LORA_R=${LORA_R:-64} LORA_ALPHA=${LORA_ALPHA:-128}
export WARMUP_RATIO=${WARMUP_RATIO:-0.1}
export LORA_DROPOUT=${LORA_DROPOUT:-0} # a small adapter taught for minutes needs none, and it costs a fifth of the time
LORA_LEARNING_RATE=${LORA_LEARNING_RATE:-2e-3}
FULL_LEARNING_RATE=${FULL_LEARNING_RATE:-5e-4}
PROJECTOR_SHARE=${PROJECTOR_SHARE:-10} # LoRA trains the projector at a rate so many times lower

# in_background COMMAND...: a process group of its own, so that all of it can be ended; its number is $! afterwards.
in_background() {
    set -m
    "$@" &
    set +m
}

# What still runs in the background ends with the script, also after Ctrl-C, which it would not hear.
end_background() {
    local pid
    for pid in $(jobs -rp); do kill -TERM -- "-$pid" 2>/dev/null || true; done
}
trap end_background EXIT
trap 'echo "stopped; finished runs are kept in $RUNS, the same command goes on from there." >&2; exit 130' INT TERM

# train_run NAME METHOD RECIPE SEED LEARNING_RATE   (reads DATA_DIR, RUNS, LORA_R)
train_run() {
    local name=$1 method=$2 recipe=$3 seed=$4 rate=$5 script=finetune_task data=train.json started
    local run_dir=$RUNS/$name
    if [ -f "$run_dir/run.json" ]; then return; fi
    if [ "$method" = lora ]; then script=finetune_task_lora; fi
    if [ "$recipe" != default ]; then data=train_$recipe.json; fi
    mkdir -p "$run_dir"
    started=$(date +%s.%N)
    MODEL_PATH=$BASE DATA_PATH=$DATA_DIR/$data IMAGE_FOLDER=$DATA_DIR/images OUTPUT_DIR=$run_dir/checkpoint \
        LEARNING_RATE=$rate SEED=$seed \
        PROJECTOR_LR=$(awk -v rate="$rate" -v share="$PROJECTOR_SHARE" 'BEGIN {print rate / share}') \
        bash "scripts/v1.5/$script.sh" --disable_tqdm True >"$run_dir/train.log" 2>&1 ||
        { echo "training of $name failed, see $run_dir/train.log:" >&2; tail -n 5 "$run_dir/train.log" >&2; return 1; }
    cp "$run_dir/checkpoint/trainer_state.json" "$run_dir/trainer_state.json"
    record_run "$name" "$method" "$recipe" "$seed" "$rate" "$started" "$run_dir/checkpoint" "scripts/v1.5/$script.sh"
}

# record_run NAME METHOD RECIPE SEED RATE STARTED CHECKPOINT COMMAND
record_run() {
    local flags=(--run-dir "$RUNS/$1" --name "$1" --method "$2" --checkpoint "$7" --command "$8")
    if [ "$2" != base ]; then
        flags+=(--recipe "$3" --seed "$4" --learning-rate "$5" --started "$6" --base "$BASE")
        if [ "$2" = lora ]; then flags+=(--rank "$LORA_R"); fi
    fi
    python -m llava.eval.run_record "${flags[@]}"
}

# evaluate_run NAME CHECKPOINT: answers both question files and scores them (reads DATA_DIR, RUNS)
evaluate_run() {
    local run_dir=$RUNS/$1 log=$RUNS/$1/eval.log
    if [ -f "$run_dir/scores.json" ]; then return; fi
    mkdir -p "$run_dir"
    (
        export MODEL_PATH=$2 RUN_DIR=$run_dir BATCH_SIZE=${EVAL_BATCH_SIZE:-64} MAX_NEW_TOKENS=48
        bash scripts/v1.5/eval/personal.sh && bash scripts/v1.5/eval/retention.sh
    ) >"$log" 2>&1 || { echo "evaluation of $1 failed, see $log:" >&2; tail -n 5 "$log" >&2; return 1; }
    local base_scores=()
    if [ -f "$RUNS/base/scores.json" ] && [ "$1" != base ]; then base_scores=(--base-scores "$RUNS/base/scores.json"); fi
    python -m llava.eval.score_personal --truth "$DATA_DIR/truth.jsonl" --out "$run_dir/scores.json" \
        --answers "$run_dir/answers/personal.jsonl" "$run_dir/answers/retention.jsonl" "${base_scores[@]}" >>"$log" 2>&1
}
