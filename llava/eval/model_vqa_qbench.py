"""Answer Q-Bench's questions about the quality of pictures.

    python -m llava.eval.model_vqa_qbench --model-path CHECKPOINT --questions-file llvisionqa_dev.json \\
        --image-folder images_llvisionqa --answers-file answers.jsonl --lang en

Two scripts of the original call this program, which it lacks; built from the benchmark's own format.
"""

import argparse
from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answering import answer_file, answering_parser, check_flags, chunk_of
from llava.eval.qbench_questions import CHOOSE, INSTRUCTIONS, read_qbench_questions

FOLDER = "./playground/data/eval/qbench"


def parser() -> CommandParser:
    """The flags of the original's scripts, in both spellings of the question file."""
    options = answering_parser(
        __doc__.splitlines()[0],
        questions='JSON array: {"img_path", "question", "candidates"}',
        question_file=f"{FOLDER}/llvisionqa_dev.json",
    )
    add = options.add_argument
    add(
        "--questions-file",
        dest="question_file",
        default=argparse.SUPPRESS,
        help="another name of --question-file",
    )
    add("--lang", default="en", choices=sorted(CHOOSE), help="of the words around the question")
    add("--single-pred-prompt", action="store_true", help="ask for the option's letter as well")
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Answer one chunk of a question file."""
    options = parser().parse(argv)
    check_flags(options)
    questions = read_qbench_questions(
        options.question_file,
        options.image_folder,
        lang=options.lang,
        ask_for_letter=options.single_pred_prompt,
        lost_allowed=not options.strict,
    )
    instruction = INSTRUCTIONS[options.lang] if options.single_pred_prompt else None
    settings = {"before_options": CHOOSE[options.lang], "instruction": instruction}
    answer_file(options, chunk_of(questions, options.num_chunks, options.chunk_idx), settings=settings)


if __name__ == "__main__":
    main()
