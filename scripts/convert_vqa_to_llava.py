"""Write VQAv2's or VizWiz' own questions as a question file of LLaVA, with the instructions of its tuning.

    python scripts/convert_vqa_to_llava.py --questions v2_OpenEnded_mscoco_val2014_questions.json \\
        --dst llava_vqav2_mscoco_val2014.jsonl
    python scripts/convert_vqa_to_llava.py --questions val.json --dst llava_val.jsonl

For validation splits: LLaVA hands out the question files of the test splits only.
"""

import json
import logging
from collections.abc import Sequence

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import wanted_path, write_text
from llava.eval.vqa_files import read_list
from llava.records import Problems, Row, kind_of, shorten

WANTED = 'question file (JSON: {"questions": [...]} of VQAv2, or the array of VizWiz)'
SHORT = "Answer the question using a single word or phrase."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
COCO = "COCO_val2014_{:012d}.jpg"


def parser() -> CommandParser:
    """Flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--questions", help="VQAv2's questions or VizWiz' annotations")
    add("--dst", help="JSON lines to write")
    add("--image-name", default=COCO, help="of VQAv2's pictures, with their number in it")
    return options


def vqav2_row(row: Row, image_name: str, problems: Problems) -> dict[str, object]:
    """One of {"image_id": 42, "question": "...", "question_id": 42000}."""
    checked(row, {"image_id": int, "question": str, "question_id": int}, problems)
    if problems.messages or not isinstance(row.value, dict):
        return {}
    image = image_name.format(row.value["image_id"])
    return asked(row.value["question_id"], image, [row.value["question"], SHORT])


def vizwiz_row(row: Row, problems: Problems) -> dict[str, object]:
    """One of {"image": "VizWiz_val_00000000.jpg", "question": "...", ...}; its number becomes its id."""
    checked(row, {"image": str, "question": str}, problems)
    if problems.messages or not isinstance(row.value, dict):
        return {}
    return asked(row.number, row.value["image"], [row.value["question"], UNANSWERABLE, SHORT])


def checked(row: Row, kinds: dict[str, type], problems: Problems) -> None:
    """Note the fields of a row that are missing or of a wrong kind."""
    if not isinstance(row.value, dict):
        problems.add(row.place, f"found {kind_of(row.value)}; an object was wanted")
        return
    for name, kind in kinds.items():
        if type(row.value.get(name)) is not kind:
            wanted = "a text" if kind is str else "a whole number"
            problems.add(f"{row.place}, {name}", f"found {shorten(row.value.get(name))}; {wanted} was wanted")


def asked(question_id: object, image: object, lines: Sequence[object]) -> dict[str, object]:
    """A line of a question file."""
    text = "\n".join(map(str, lines))
    return {"question_id": question_id, "image": image, "text": text, "category": "default"}


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    source, target = wanted_path(options.questions, "--questions"), wanted_path(options.dst, "--dst")
    rows, is_vqav2 = read_list(source, "questions", WANTED)
    problems = Problems(source)
    lines = [
        vqav2_row(row, options.image_name, problems) if is_vqav2 else vizwiz_row(row, problems)
        for row in rows
    ]
    problems.raise_any()
    write_text("".join(json.dumps(line) + "\n" for line in lines), target)


if __name__ == "__main__":
    main()
