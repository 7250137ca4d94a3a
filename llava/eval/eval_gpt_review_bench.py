"""Have a judge model compare two answers about LLaVA-Bench's pictures, which it sees as descriptions.

    python llava/eval/eval_gpt_review_bench.py -q questions.jsonl -c context.jsonl \\
        -a answers_gpt4.jsonl mine.jsonl -r llava/eval/table/rule.json -o reviews/mine.jsonl

The server is an OpenAI-compatible one, by default OpenAI's (see judge_flags); what comes out is for
summarize_gpt_review.py.
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.review_run import review, review_parser
from llava.eval.reviews import Form, caption_of

FORM = Form(describe=caption_of, prefix="llava_bench_")


def parser() -> CommandParser:
    """The original's flags, and those of a judge."""
    return review_parser(__doc__.splitlines()[0], with_context=True)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Review."""
    review(parser().parse(argv), FORM)


if __name__ == "__main__":
    main()
