# shellcheck shell=bash
# Sourced by the scripts of benchmarks that a judge model scores, after scripts/common/benchmark.sh.
#
#   OPENAI_API_KEY   key of the judge's server; only the programs read it, it is in no command line and no log
#   OPENAI_BASE_URL  another OpenAI-compatible server, as http://127.0.0.1:8000/v1
#   JUDGE_MODEL      the judge (default: gpt-4-0613, the published figures' one)
#   JUDGE_PRICE      price of a million tokens, "in out", to have the cost told

NO_JUDGE=3

# need_judge WHAT_IS_READY: fills the array `judge_flags`, or ends the script with 3 when nobody says who the judge is
need_judge() {
    if [ -z "${OPENAI_API_KEY:-}${OPENAI_BASE_URL:-}" ]; then
        echo "answered, not judged: $1 is ready; set OPENAI_API_KEY (or OPENAI_BASE_URL for a server of your own) and" \
            "give the same command again." >&2
        exit "$NO_JUDGE"
    fi
    judge_flags=(--judge-model "${JUDGE_MODEL:-gpt-4-0613}")
    if [ -n "${JUDGE_PRICE:-}" ]; then
        local price
        read -r -a price <<<"$JUDGE_PRICE"
        judge_flags+=(--price "${price[@]}")
    fi
}
