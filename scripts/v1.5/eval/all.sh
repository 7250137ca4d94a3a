#!/usr/bin/env bash
# Every benchmark whose data are there, one after the other, and one table of all scores.
#   MODEL_PATH=checkpoints/llava-v1.5-7b bash scripts/v1.5/eval/all.sh
# One that fails does not keep the others from running; the script then ends with 1 and names it. Flags go to the answering programs.
set -euo pipefail
cd "$(dirname "$0")/../../.."

export MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b} # checkpoint that is asked
export BATCH_SIZE=${BATCH_SIZE:-auto}                        # questions decoded together; changes no answer
export CONV_MODE=${CONV_MODE:-}                              # conversation template; empty: the checkpoint's own
export EVAL_DIR=${EVAL_DIR:-./playground/data/eval}          # folder of all benchmarks
unset SPLIT # each benchmark has its own
BENCHMARKS=${BENCHMARKS:-vqav2 gqa vizwiz sqa textvqa pope mme mmbench mmbench_cn seed llavabench mmvet qbench qbench_zh}

source scripts/common/benchmark.sh
absent=() unjudged=() failed=()
for name in $BENCHMARKS; do
    echo "== $name"
    split=()
    case $name in qbench*) split=(dev) ;; esac
    code=0
    bash "scripts/v1.5/eval/$name.sh" "${split[@]}" "$@" || code=$?
    case $code in
    0) ;;
    3) unjudged+=("$name") ;;
    "$NO_DATA") absent+=("$name") ;;
    130 | 143) exit "$code" ;; # stopped by the user
    *) failed+=("$name (exit code $code)") ;;
    esac
done
echo "== scores"
if [ -d "$EVAL_DIR" ] && [ -n "$(find "$EVAL_DIR" -name results.json -print -quit)" ]; then
    run_python llava.eval.collect "$EVAL_DIR" || failed+=("the table")
else
    echo "none yet"
fi
if [ "${#absent[@]}" -gt 0 ]; then echo "no data: ${absent[*]}"; fi
if [ "${#unjudged[@]}" -gt 0 ]; then echo "in part, see above (error lines, or no judge): ${unjudged[*]}"; fi
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
if [ "${#absent[@]}" = "$(wc -w <<<"$BENCHMARKS")" ]; then exit "$NO_DATA"; fi
if [ "${#unjudged[@]}" -gt 0 ]; then exit 3; fi
