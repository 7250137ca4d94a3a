# shellcheck shell=bash
# Sourced by the training scripts: finds out what the machine has, collects the flags that all stages share, and starts
# one process, several GPUs, or several nodes.
#
#   GPUS        GPUs of this machine to use (default: all that nvidia-smi lists)
#   NPROC       processes on this machine (default: one per GPU, one without a GPU)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines: start the same script on each
#   DEEPSPEED   a ZeRO config; default: the script's own on several GPUs, none on one or without; "none" = never
#   WORKERS     processes that open pictures ahead (default: by the machine's cores)
#   BF16, TF32  default: on with a GPU, off without (fp32)
#   PYTHON      the interpreter (default: python)

count_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ] && [ -z "$CUDA_VISIBLE_DEVICES" ]; then
        echo 0
    elif command -v nvidia-smi >/dev/null 2>&1; then
        nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true
    else
        echo 0
    fi
}

# Fills the arrays `launcher` and `shared_flags` from the variables of the script that sources this file.
prepare_training() {
    local default_deepspeed=$1 on_gpu=False ranks
    GPUS=${GPUS:-$(count_gpus)}
    if [ "$GPUS" -gt 0 ]; then on_gpu=True; fi
    NPROC=${NPROC:-$((GPUS > 0 ? GPUS : 1))}
    NNODES=${NNODES:-1}
    ranks=$((NPROC * NNODES))
    if [ -z "${DEEPSPEED:-}" ]; then
        if [ "$on_gpu" = True ] && [ "$ranks" -gt 1 ]; then DEEPSPEED=$default_deepspeed; else DEEPSPEED=none; fi
    fi
    launcher=("${PYTHON:-python}")
    if [ "$ranks" -gt 1 ]; then
        launcher=(torchrun --nproc_per_node "$NPROC" --nnodes "$NNODES" --node_rank "${NODE_RANK:-0}"
            --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}")
    fi
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

# Runs the trainer with the prepared flags and those given.
run_training() {
    echo "== ${launcher[*]} llava/train/train_mem.py ($NPROC process(es), DeepSpeed: $DEEPSPEED, bf16: ${BF16:-auto})"
    "${launcher[@]}" llava/train/train_mem.py "${shared_flags[@]}" "$@"
}
