"""Answer MMBench's table of questions with options; the pictures are in the table.

    python -m llava.eval.model_vqa_mmbench --model-path CHECKPOINT --question-file mmbench_dev.tsv \\
        --answers-file answers.jsonl --single-pred-prompt --temperature 0
"""

from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answering import (
    PictureSource,
    answer_file,
    answering_parser,
    check_flags,
    chunk_of,
    note_dead_flag,
)
from llava.eval.mmbench_questions import LETTER_INSTRUCTIONS, questions_of, read_items
from llava.eval.picture_bytes import decode_base64, picture_of, size_of


def parser() -> CommandParser:
    """The original's flags, and --max_new_tokens, --batch-size and --seed."""
    options = answering_parser(
        __doc__.splitlines()[0],
        questions="table with the columns index, question, hint, A, B, ... and image (base64)",
        image_folder="does nothing, kept for old commands",
    )
    add = options.add_argument
    add("--all-rounds", action="store_true", help="ask once for every order that turning the options gives")
    add("--single-pred-prompt", action="store_true", help="ask for the option's letter")
    add("--lang", default="en", choices=sorted(LETTER_INSTRUCTIONS), help="of --single-pred-prompt")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a table; all rounds of a row are in one chunk."""
    options = parser().parse(argv)
    check_flags(options)
    if options.image_folder:
        note_dead_flag("--image-folder", "the pictures are in the table.")
    items = chunk_of(read_items(options.question_file), options.num_chunks, options.chunk_idx)
    instruction = LETTER_INSTRUCTIONS[options.lang] if options.single_pred_prompt else None
    questions = [
        question
        for item in items
        for question in questions_of(item, all_rounds=options.all_rounds, instruction=instruction)
    ]
    texts = {item.place: item.image for item in items}
    pictures = PictureSource(
        open=lambda place: picture_of(decode_base64(texts[place]), f"of {place}"),
        size=lambda place: size_of(decode_base64(texts[place]), f"of {place}"),
    )
    settings = {"instruction": instruction, "all_rounds": options.all_rounds}
    answer_file(options, questions, settings=settings, pictures=pictures)


if __name__ == "__main__":
    main()
