"""Answer a question file about a folder of pictures.

    python -m llava.eval.model_vqa_loader --model-path CHECKPOINT --question-file questions.jsonl \\
        --image-folder images --answers-file answers.jsonl --temperature 0 --batch-size 32
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answering import answer_file, answering_parser, check_flags, chunk_of
from llava.eval.questions import read_questions

QUESTIONS_HELP = 'JSON lines: {"question_id", "image", "text"}'


def parser() -> CommandParser:
    """The original's flags, and --batch-size and --seed."""
    return answering_parser(__doc__.splitlines()[0], questions=QUESTIONS_HELP, max_new_tokens=128)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a question file."""
    run(parser(), argv)


def run(flags: CommandParser, argv: Sequence[str] | None) -> None:
    """Answer one chunk of a question file, with a program's own defaults."""
    options = flags.parse(argv)
    check_flags(options)
    questions = read_questions(options.question_file, options.image_folder, lost_allowed=not options.strict)
    answer_file(options, chunk_of(questions, options.num_chunks, options.chunk_idx))


if __name__ == "__main__":
    main()
