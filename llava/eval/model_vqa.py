"""Answer a question file about a folder of pictures, with long answers: up to 1024 tokens unless told.

    python -m llava.eval.model_vqa --model-path CHECKPOINT --question-file questions.jsonl \\
        --image-folder images --answers-file answers.jsonl --temperature 0

The original has it beside model_vqa_loader for its fixed length; here only that default differs.
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answering import answering_parser
from llava.eval.model_vqa_loader import QUESTIONS_HELP, run


def parser() -> CommandParser:
    """The original's flags, and --max_new_tokens, --batch-size and --seed."""
    return answering_parser(__doc__.splitlines()[0], questions=QUESTIONS_HELP)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a question file."""
    run(parser(), argv)


if __name__ == "__main__":
    main()
