# shellcheck shell=bash
# Sourced by the evaluation scripts: answers a question file with one process per GPU (one in all without a GPU), and merges
# the parts in order. A rerun takes up what is unfinished; a failed part fails the script.

# answer_questions QUESTION_FILE IMAGE_FOLDER ANSWERS_FILE   (reads MODEL_PATH, BATCH_SIZE, CONV_MODE, GPU_LIST)
answer_questions() {
    local questions=$1 images=$2 answers=$3 gpus pids=() part failed=0
    IFS=',' read -r -a gpus <<<"${GPU_LIST:-${CUDA_VISIBLE_DEVICES:-}}"
    local flags=(--model-path "$MODEL_PATH" --question-file "$questions" --image-folder "$images"
        --temperature 0 --batch-size "${BATCH_SIZE:-auto}" --max_new_tokens "${MAX_NEW_TOKENS:-128}")
    if [ -n "${CONV_MODE:-}" ]; then flags+=(--conv-mode "$CONV_MODE"); fi
    if [ "${#gpus[@]}" -le 1 ]; then
        "${PYTHON:-python}" -m llava.eval.model_vqa_loader "${flags[@]}" --answers-file "$answers"
        return
    fi
    for part in "${!gpus[@]}"; do
        CUDA_VISIBLE_DEVICES=${gpus[$part]} "${PYTHON:-python}" -m llava.eval.model_vqa_loader "${flags[@]}" \
            --answers-file "$answers.${#gpus[@]}_$part" --num-chunks "${#gpus[@]}" --chunk-idx "$part" &
        pids+=($!)
    done
    for part in "${!pids[@]}"; do
        wait "${pids[$part]}" || { echo "part $part of $questions failed" >&2; failed=1; }
    done
    if [ "$failed" = 1 ]; then return 1; fi
    for part in "${!gpus[@]}"; do cat "$answers.${#gpus[@]}_$part"; done >"$answers"
}
