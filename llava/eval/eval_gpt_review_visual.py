"""Have a judge model compare two answers about pictures, which it sees as captions and boxes.

    python llava/eval/eval_gpt_review_visual.py -q qa90_questions.jsonl -c caps_boxes_coco2014_val_80.jsonl \\
        -a qa90_gpt4_answer.jsonl mine.jsonl -r llava/eval/table/rule.json -o reviews/mine.jsonl

The server is an OpenAI-compatible one, by default OpenAI's (see judge_flags); what comes out is for
summarize_gpt_review.py.
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.review_run import review, review_parser
from llava.eval.reviews import Form, captions_and_boxes

FORM = Form(describe=captions_and_boxes)


def parser() -> CommandParser:
    """The original's flags, and those of a judge."""
    return review_parser(__doc__.splitlines()[0], with_context=True)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Review."""
    review(parser().parse(argv), FORM)


if __name__ == "__main__":
    main()
