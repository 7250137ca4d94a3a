# shellcheck shell=bash
# Sourced by the training scripts: finds out what the machine has, collects the flags that all stages share, and starts
# one process, several GPUs, or several nodes.
#
#   NUM_GPUS    processes on this machine, one per GPU (default: all that nvidia-smi lists, one without; or NPROC)
#   NUM_NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines: start the script on each (or NNODES)
#   HOSTFILE    a DeepSpeed host file: start the script on one machine, `deepspeed` starts the others over ssh
#   DEEPSPEED   a ZeRO config; default: the script's own on several GPUs, none on one or without; "none" = never
#   GPUS        GPUs that are there (default: what nvidia-smi lists)
#   WORKERS     processes that open pictures ahead (default: by the machine's cores)
#   BF16, TF32  default: on with a GPU, off without (fp32)
#   SAVE_WAIT   seconds that a signal leaves several processes to end their step and save (default: 600)
#   PYTHON      the interpreter (default: python)
#
# Exit codes are those of the training (docs/operations.md).

count_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ] && [ -z "$CUDA_VISIBLE_DEVICES" ]; then
        echo 0
    elif command -v nvidia-smi >/dev/null 2>&1; then
        nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true
    else
        echo 0
    fi
}

# Fills the array `launcher`.
choose_launcher() {
    if [ -n "${HOSTFILE:-}" ]; then
        launcher=(deepspeed --hostfile "$HOSTFILE" --master_port "${MASTER_PORT:-29500}")
        if [ -n "${MASTER_ADDR:-}" ]; then launcher+=(--master_addr "$MASTER_ADDR"); fi
    elif [ "$has_ranks" = True ]; then
        launcher=(torchrun --nproc_per_node "$NUM_GPUS" --nnodes "$NUM_NODES" --node_rank "${NODE_RANK:-0}"
            --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}")
    else
        launcher=("${PYTHON:-python}")
    fi
}

# Fills the arrays `launcher` and `shared_flags` from the variables of the script that sources this file.
prepare_training() {
    local default_deepspeed=$1 on_gpu=False
    GPUS=${GPUS:-$(count_gpus)}
    if [ "$GPUS" -gt 0 ]; then on_gpu=True; fi
    NUM_GPUS=${NUM_GPUS:-${NPROC:-$((GPUS > 0 ? GPUS : 1))}}
    NUM_NODES=${NUM_NODES:-${NNODES:-1}}
    has_ranks=False
    if [ -n "${HOSTFILE:-}" ] || [ $((NUM_GPUS * NUM_NODES)) -gt 1 ]; then has_ranks=True; fi
    if [ -z "${DEEPSPEED:-}" ]; then
        if [ "$on_gpu$has_ranks" = TrueTrue ]; then DEEPSPEED=$default_deepspeed; else DEEPSPEED=none; fi
    fi
    choose_launcher
    shared_flags=(
        --model_name_or_path "$MODEL_PATH"
        --version "$VERSION"
        --data_path "$DATA_PATH"
        --image_folder "$IMAGE_FOLDER"
        --output_dir "$OUTPUT_DIR"
        --image_aspect_ratio "$IMAGE_ASPECT_RATIO"
        --num_train_epochs "$EPOCHS"
        --per_device_train_batch_size "$BATCH_SIZE"
        --gradient_accumulation_steps "$GRADIENT_ACCUMULATION"
        --learning_rate "$LEARNING_RATE"
        --weight_decay "${WEIGHT_DECAY:-0.}"
        --warmup_ratio "${WARMUP_RATIO:-0.03}"
        --lr_scheduler_type "${LR_SCHEDULER:-cosine}"
        --model_max_length "$MODEL_MAX_LENGTH"
        --packing "${PACKING:-shared}"
        --max_branches "${MAX_BRANCHES:-8}"
        --save_strategy "${SAVE_STRATEGY:-steps}"
        --save_steps "$SAVE_STEPS"
        --save_total_limit "${SAVE_TOTAL_LIMIT:-2}"
        --logging_steps "${LOGGING_STEPS:-1}"
        --seed "${SEED:-42}"
        --bf16 "${BF16:-$on_gpu}"
        --tf32 "${TF32:-$on_gpu}"
        --gradient_checkpointing "${GRADIENT_CHECKPOINTING:-$on_gpu}"
        --report_to "${REPORT_TO:-none}"
    )
    if [ -n "${WORKERS:-}" ]; then shared_flags+=(--dataloader_num_workers "$WORKERS"); fi
    if [ "$DEEPSPEED" != none ]; then shared_flags+=(--deepspeed "$DEEPSPEED"); fi
}

# Runs the trainer with the prepared flags and those given; the script ends here, with the training's exit code.
run_training() {
    echo "== ${launcher[*]} llava/train/train_mem.py ($NUM_GPUS process(es), DeepSpeed: $DEEPSPEED, bf16: ${BF16:-auto})"
    set -- "${launcher[@]}" llava/train/train_mem.py "${shared_flags[@]}" "$@"
    if [ "$has_ranks" = False ]; then exec "$@"; fi # signals then reach the training itself
    run_ranks "$@"
}

# Runs a launcher of several processes. It is a process group of its own, so that Ctrl-C reaches it once, through this
# script: the first signal goes to the launcher, which hands it on, a second one to the processes that it started.
run_ranks() {
    local code number
    num_signals=0
    LLAVA_EXIT_CODE_FILE=$(mktemp -u "${TMPDIR:-/tmp}/llava-exit-code.XXXXXXXX")
    export LLAVA_EXIT_CODE_FILE
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${SAVE_WAIT:-600}                 # torchrun would kill after 30 s
    export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1      # and not hand SIGUSR1 on
    set -m
    "$@" &
    launcher_pid=$!
    set +m
    end_stragglers &
    trap 'hand_on INT' INT
    trap 'hand_on TERM' TERM
    trap 'hand_on HUP' HUP
    trap 'hand_on USR1' USR1
    while true; do # a signal ends `wait` early, with a code of its own
        code=0
        wait "$launcher_pid" || code=$?
        kill -0 "$launcher_pid" 2>/dev/null || break
    done
    kill %end_stragglers 2>/dev/null || true
    if [ -f "$LLAVA_EXIT_CODE_FILE" ]; then
        number=$(cat "$LLAVA_EXIT_CODE_FILE")
        rm -f "$LLAVA_EXIT_CODE_FILE"
        if [ "$code" -ne 0 ]; then code=$number; fi # torchrun itself ends with 1
    fi
    exit "$code"
}

# A process that failed has left its code: what then hears no signal for 30 s is killed, as torchrun itself would do.
end_stragglers() {
    while kill -0 "$launcher_pid" 2>/dev/null; do
        if [ -s "$LLAVA_EXIT_CODE_FILE" ] && [ "$(cat "$LLAVA_EXIT_CODE_FILE")" -lt 128 ]; then
            sleep 30
            pkill -KILL -P "$launcher_pid" 2>/dev/null || true
            return
        fi
        sleep 1
    done
}

# hand_on SIGNAL
hand_on() {
    num_signals=$((num_signals + 1))
    if [ "$num_signals" = 1 ]; then
        kill -s "$1" "$launcher_pid" 2>/dev/null || true
    else
        pkill "-$1" -P "$launcher_pid" 2>/dev/null || true
    fi
}
