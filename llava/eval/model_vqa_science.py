"""Answer ScienceQA questions, with or without a picture.

    python -m llava.eval.model_vqa_science --model-path CHECKPOINT --question-file llava_test_CQM-A.json \\
        --image-folder images/test --answers-file answers.jsonl --single-pred-prompt --temperature 0
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answering import answer_file, answering_parser, check_flags, chunk_of, note_dead_flag
from llava.eval.science_questions import read_science_questions


def parser() -> CommandParser:
    """The original's flags, and those that its other programs and ours have."""
    options = answering_parser(
        __doc__.splitlines()[0],
        questions='JSON array: {"id", "image", "conversations"}, the first turn is asked',
        question_file="tables/question.json",
    )
    add = options.add_argument
    add("--answer-prompter", action="store_true", help="does nothing, kept for old commands")
    add("--single-pred-prompt", action="store_true", help="ask for the option's letter")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a question file."""
    options = parser().parse(argv)
    check_flags(options)
    if options.answer_prompter:
        note_dead_flag("--answer-prompter", "the answer is the first that the model gives.")
    questions = read_science_questions(
        options.question_file,
        options.image_folder,
        ask_for_letter=options.single_pred_prompt,
        lost_allowed=not options.strict,
    )
    settings = {"single_pred_prompt": options.single_pred_prompt}
    answer_file(options, chunk_of(questions, options.num_chunks, options.chunk_idx), settings=settings)


if __name__ == "__main__":
    main()
