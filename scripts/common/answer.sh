# shellcheck shell=bash
# Sourced by the evaluation scripts: answers a question file with one process per GPU (one in all without a GPU), and merges
# the parts in order. A rerun takes up what is unfinished and asks failed questions again; a failed part fails the script, and
# questions that could not be answered end it with 3 (the answers file then has a line with the reason for each).

# answer_questions QUESTION_FILE IMAGE_FOLDER ANSWERS_FILE   (reads MODEL_PATH, BATCH_SIZE, CONV_MODE, GPU_LIST)
answer_questions() {
    local questions=$1 images=$2 answers=$3 gpus pids=() part code failed=0 partial=0
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
        code=0
        wait "${pids[$part]}" || code=$?
        if [ "$code" = 3 ]; then
            partial=3 # all lines are there, some say an error
        elif [ "$code" != 0 ]; then
            echo "part $part of $questions failed (exit code $code); the same command goes on from there" >&2
            failed=1
        fi
    done
    if [ "$failed" = 1 ]; then return 1; fi
    for part in "${!gpus[@]}"; do cat "$answers.${#gpus[@]}_$part"; done >"$answers.merging"
    mv "$answers.merging" "$answers"
    return "$partial"
}
