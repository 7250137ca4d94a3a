"""Answers in the forms that benchmarks' servers and scoring programs take, as functions of plain values.

Answers are dictionaries: question id -> text.
"""

from collections.abc import Iterable, Mapping, Sequence

from llava.eval.metrics.gqa import predicted
from llava.eval.metrics.vqa_text import normalise_answer

DROPPED_COLUMNS = {"hint", "category", "source", "image", "comment", "l2-category"}
PREDICTION_PLACE = 6
"""In MMBench's sheet the prediction stands behind index, question and the options A to D."""

Cell = str | int | None


def gqa(answers: Iterable[tuple[object, str]]) -> list[dict[str, object]]:
    """GQA's predictions: lower case, without periods at the end; pairs of (question id as given, text)."""
    return [{"questionId": name, "prediction": predicted(text)} for name, text in answers]


def mmvet(answers: Mapping[str, str]) -> dict[str, str]:
    """MM-Vet's predictions: `v1_ID` -> text."""
    return {f"v1_{name}": text for name, text in answers.items()}


def vqav2(questions: Iterable[object], answers: Mapping[str, str]) -> list[dict[str, object]]:
    """VQAv2's answers in the order of the questions (ids as given), normalised; "" where there is none."""
    return [
        {"question_id": name, "answer": normalise_answer(answers.get(str(name), ""))} for name in questions
    ]


def vizwiz(pictures: Mapping[str, str], answers: Mapping[str, str]) -> list[dict[str, str]]:
    """VizWiz' answers in the order of `pictures` (question id -> picture), normalised."""
    return [{"image": image, "answer": normalise_answer(answers[name])} for name, image in pictures.items()]


def seed(questions: Iterable[object], answers: Mapping[str, str]) -> list[dict[str, object]]:
    """SEED-Bench's predictions in the order of the questions (ids as given)."""
    return [{"question_id": name, "prediction": answers[str(name)]} for name in questions]


def mmbench_sheet(
    columns: Sequence[str], rows: Iterable[Mapping[str, str]], answers: Mapping[str, str]
) -> list[list[Cell]]:
    """MMBench's sheet, heading first: the questions without hints and pictures, and the predictions.

    Empty cells are None; the index is a number where it is one.
    """
    kept = [name for name in columns if name not in DROPPED_COLUMNS]
    sheet: list[list[Cell]] = [[*kept[:PREDICTION_PLACE], "prediction", *kept[PREDICTION_PLACE:]]]
    for row in rows:
        cells: list[Cell] = [row.get(name) or None for name in kept]
        index = row["index"]
        cells[kept.index("index")] = int(index) if index.isdecimal() else index
        prediction = answers.get(index) or None
        sheet.append([*cells[:PREDICTION_PLACE], prediction, *cells[PREDICTION_PLACE:]])
    return sheet
