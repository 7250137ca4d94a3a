# shellcheck shell=bash
# Sourced by the evaluation scripts: looks for a benchmark's data, answers its questions with one process per GPU, merges the
# parts in order, and runs scorers. A script ends with the first thing that fails.
#
#   MODEL_PATH, MODEL_BASE   the checkpoint, and the base of an adapter that does not say where it is
#   CKPT            name of the folder for its answers (default: that of MODEL_PATH)
#   BATCH_SIZE      questions decoded together; changes no answer (default: auto)
#   CONV_MODE       conversation template (default: the one that the checkpoint was tuned with)
#   MAX_NEW_TOKENS  longest answer (default: the answering program's)
#   GPU_LIST        one process for each of these (default: CUDA_VISIBLE_DEVICES; one process without either)
#   EVAL_DIR        folder of all benchmarks (docs/evaluation.md)
#   PYTHON          the interpreter (default: python)
#
# Exit codes: 0 done; 2 something must be mended first; 3 part of the result is there (questions that could not be answered, or
# a judge that nobody named); 4 the benchmark's data are not there; anything else: a part failed, the same command goes on.

NO_DATA=4

# checkpoint_name PATH: its folder, with the folder above when that is only a step (checkpoint-500), as in answers' model_id
checkpoint_name() {
    local path=${1%/} name
    name=$(basename "$path")
    case $name in
    checkpoint-*) name=$(basename "$(dirname "$path")")_$name ;;
    esac
    echo "$name"
}

CKPT=${CKPT:-$(checkpoint_name "$MODEL_PATH")}
EVAL_DIR=${EVAL_DIR:-./playground/data/eval}

# run_python MODULE_OR_FILE FLAGS...
run_python() {
    local program=$1
    shift
    case $program in
    *.py) "${PYTHON:-python}" "$program" "$@" ;;
    *) "${PYTHON:-python}" -m "$program" "$@" ;;
    esac
}

# need PATH...: ends the script with 4 and names what is missing
need() {
    local path missing=()
    for path in "$@"; do
        if [ ! -e "$path" ]; then missing+=("$path"); fi
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        printf 'missing: %s\n' "${missing[@]}" >&2
        echo "docs/evaluation.md says where the data come from." >&2
        exit "$NO_DATA"
    fi
}

# answer PROGRAM QUESTION_FILE ANSWERS_FILE [FLAGS...]: asks with llava.eval.PROGRAM, or goes on where an earlier run stopped
answer() {
    local program=$1 questions=$2 answers=$3 gpus part file pids=() parts=()
    shift 3
    IFS=',' read -r -a gpus <<<"${GPU_LIST:-${CUDA_VISIBLE_DEVICES:-}}"
    local flags=(--model-path "$MODEL_PATH" --question-file "$questions" --temperature 0 --batch-size "${BATCH_SIZE:-auto}")
    if [ -n "${MODEL_BASE:-}" ]; then flags+=(--model-base "$MODEL_BASE"); fi
    if [ -n "${CONV_MODE:-}" ]; then flags+=(--conv-mode "$CONV_MODE"); fi
    if [ -n "${MAX_NEW_TOKENS:-}" ]; then flags+=(--max_new_tokens "$MAX_NEW_TOKENS"); fi
    if [ "${#gpus[@]}" -le 1 ]; then
        if [ "${#gpus[@]}" = 1 ]; then local -x CUDA_VISIBLE_DEVICES=${gpus[0]}; fi
        in_background -m "llava.eval.$program" "${flags[@]}" --answers-file "$answers" "$@"
        wait_for_parts "$questions"
        return
    fi
    for part in "${!gpus[@]}"; do
        file=$answers.${#gpus[@]}_$part
        parts+=("$file")
        CUDA_VISIBLE_DEVICES=${gpus[$part]} in_background -m "llava.eval.$program" "${flags[@]}" \
            --answers-file "$file" --num-chunks "${#gpus[@]}" --chunk-idx "$part" "$@"
    done
    local code=0
    wait_for_parts "$questions" || code=$?
    case $code in
    0 | 3) run_python llava.eval.merge_answers --answers-file "$answers" "${parts[@]}" || return ;;
    esac
    return "$code"
}

# in_background FLAGS...: starts the interpreter and notes its number in `pids`
in_background() {
    "${PYTHON:-python}" "$@" &
    pids+=($!)
}

# wait_for_parts QUESTION_FILE: 0 when all of `pids` did their part, 3 when some questions have an error line, else 1
wait_for_parts() {
    local part code failed=0 partial=0
    trap 'end_parts INT 130' INT
    trap 'end_parts TERM 143' TERM HUP
    for part in "${!pids[@]}"; do
        code=0
        wait "${pids[$part]}" || code=$?
        case $code in
        0) ;;
        3) partial=3 ;; # all lines are there
        2) failed=2 && echo "part $part of $1 was refused (exit code 2), see above" >&2 ;;
        *) failed=1 && echo "part $part of $1 failed (exit code $code); the same command goes on from there" >&2 ;;
        esac
    done
    trap - INT TERM HUP
    if [ "$failed" != 0 ]; then return "$failed"; fi
    return "$partial"
}

# end_parts SIGNAL CODE: what runs in the background does not hear Ctrl-C by itself
end_parts() {
    kill -TERM "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    echo "stopped by SIG$1; the same command goes on from there" >&2
    exit "$2"
}

# has_column NAME TABLE: whether a table with tabs has such a column
has_column() {
    head -n 1 "$2" | tr -d '\r' | tr '\t' '\n' | grep -qxF "$1"
}
