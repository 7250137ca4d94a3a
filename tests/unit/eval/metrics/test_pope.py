"""POPE: answers by ids, labels by picture, text and number, and files that do not belong together."""

import random
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval import eval_pope
from llava.eval.metrics.pope import Counts, Item, block, count, label_is_yes, pair_labels, says_yes
from tests.unit.eval.metrics.conftest import Failing, orders, write_lines

CATEGORIES = ("adversarial", "random")
PER_CATEGORY = 12


def label_of(category: str, number: int) -> str:
    """Not the same in every category, nor alternating."""
    return "yes" if (number * 5 + len(category)) % 3 else "no"


def questions() -> list[dict]:
    """Questions of two categories, numbered through."""
    return [
        {
            "question_id": number,
            "category": category,
            "image": f"{number % 4}.jpg",
            "text": f"Is there {number}?",
        }
        for number, category in enumerate(name for name in CATEGORIES for _ in range(PER_CATEGORY))
    ]


def answers(*, wrong: int = 0) -> list[dict]:
    """Right answers to all questions but the first few."""
    rows = []
    for row in questions():
        truth = label_of(row["category"], row["question_id"])
        said = truth if row["question_id"] >= wrong else {"yes": "no", "no": "yes"}[truth]
        rows.append({"question_id": row["question_id"], "text": f"{said.capitalize()}, it is so."})
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """coco/ with labels numbered from 1 in each category, and questions.jsonl with a hint below each."""
    for category in CATEGORIES:
        rows = [row for row in questions() if row["category"] == category]
        labels = [
            {"question_id": k, "image": row["image"], "text": row["text"],
             "label": label_of(category, row["question_id"])}
            for k, row in enumerate(rows, start=1)
        ]  # fmt: skip
        write_lines(labels, tmp_path / "coco" / f"coco_pope_{category}.json")
    hinted = [row | {"text": row["text"] + "\nAnswer with a single word."} for row in questions()]
    write_lines(hinted, tmp_path / "questions.jsonl")
    return tmp_path


def flags(folder: Path, rows: list[dict]) -> list[str]:
    """The command line for these answers."""
    path = write_lines(rows, folder / "answers.jsonl")
    return [
        "--annotation-dir", str(folder / "coco"), "--question-file", str(folder / "questions.jsonl"),
        "--result-file", str(path),
    ]  # fmt: skip


def test_no_order_of_lines_matters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    labels = folder / "coco" / "coco_pope_random.json"
    lines = labels.read_text(encoding="utf-8").splitlines(keepends=True)
    asked = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for seed, rows in enumerate(orders(answers(wrong=5))):
        random.Random(seed).shuffle(lines)
        random.Random(seed).shuffle(asked)
        labels.write_text("".join(lines), encoding="utf-8")
        (folder / "questions.jsonl").write_text("".join(asked), encoding="utf-8")
        eval_pope.main(flags(folder, rows))
        printed.add(capsys.readouterr().out)
    (text,) = printed
    assert f"Accuracy: {7 / 12}\n" in text
    assert "Category: random, # samples: 12" in text
    assert "Accuracy: 1.0\n" in text


def test_missing_foreign_and_repeated_answers_are_named(folder: Path, refusal: Failing) -> None:
    rows = answers()
    told = refusal(eval_pope.main, *flags(folder, rows[7:]))
    assert "7 questions have no answer, first 0, 1, 2, 3, 4;" in told
    told = refusal(eval_pope.main, *flags(folder, [*rows, {"question_id": "x9", "text": "Yes"}]))
    assert "1 answer belongs to no question, first x9" in told
    told = refusal(eval_pope.main, *flags(folder, [*rows, rows[3]]))
    assert "1 question is answered more than once, first 3" in told


def test_files_that_do_not_fit_are_refused(folder: Path, refusal: Failing) -> None:
    command = flags(folder, answers())
    labels = folder / "coco" / "coco_pope_random.json"
    labels.write_text(labels.read_text(encoding="utf-8").replace('"label": "no"', '"label": "maybe"', 1))
    assert "found 'maybe'; yes or no was wanted" in refusal(eval_pope.main, *command)
    labels.write_text('{"label": "yes"}\n', encoding="utf-8")
    assert "1 labels for 12 questions" in refusal(eval_pope.main, *command)
    labels.write_text("", encoding="utf-8")
    assert "is empty" in refusal(eval_pope.main, *command)
    assert "holds no coco_pope_CATEGORY.json" in refusal(
        eval_pope.main, "--annotation-dir", folder, *command[2:]
    )
    assert "--result-file is missing" in refusal(eval_pope.main, *command[:4])


def test_categories_that_only_one_file_has_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], refusal: Failing
) -> None:
    file = folder / "coco" / "coco_pope_adversarial.json"
    file.rename(file.with_name("coco_pope_other.json"))
    eval_pope.main(flags(folder, answers()))
    assert "has no labels for adversarial" in caplog.text
    assert "there are no questions for other" in caplog.text
    assert capsys.readouterr().out.count("Category: ") == 1
    (folder / "coco" / "coco_pope_random.json").unlink()
    told = refusal(eval_pope.main, *flags(folder, answers()))
    assert "has labels for other, the questions are of adversarial, random" in told


def test_empty_answer_files_are_refused(folder: Path, refusal: Failing) -> None:
    command = flags(folder, [])
    assert "is empty" in refusal(eval_pope.main, *command)


@pytest.mark.parametrize(
    ("answer", "published", "any_form"),
    [
        ("Yes", True, True), ("No, nothing.", False, False), ("There is not one", False, False),
        ("Yes. No doubt.", True, True), ("NO", True, False), ('"No"', True, False), ("no!", True, False),
        ("Nope", True, True), ("", True, True), ("Yes,no", True, True),
    ],
)  # fmt: skip
def test_what_counts_as_yes(answer: str, published: bool, any_form: bool) -> None:
    assert says_yes(answer) == published
    assert says_yes(answer, any_form=True) == any_form


def test_labels() -> None:
    assert [label_is_yes(label) for label in ("yes", "no", "No")] == [True, False, True]
    assert [label_is_yes(label, any_form=True) for label in ("yes", "no", " No ")] == [True, False, False]


def test_nothing_of_nothing_is_a_number() -> None:
    empty = count([])
    assert (empty.accuracy, empty.precision, empty.recall, empty.f1, empty.yes_ratio) == (0, 0, 0, 0, 0)
    assert block("x", Counts(0, 0, 1, 1)).splitlines()[-2] == "0.000, 0.500, 0.000, 0.000, 0.000"


def test_labels_are_found_by_picture_before_number() -> None:
    asked = [Item("10", "a/1.jpg", "Q?\nhint"), Item("2", "2.jpg", "Q?")]
    labels = [Item("1", "2.jpg", "Q?"), Item("2", "1.jpg", "Q?")]
    assert pair_labels(asked, labels) == {"10": 1, "2": 0}
    plain = [Item(None), Item(None)]
    assert pair_labels(asked, plain) == {"2": 0, "10": 1}, "in the order of numbers, not of texts"
    assert pair_labels(asked[:1], labels) == {"10": 1}, "labels may be more than the questions"
    with pytest.raises(UsageError, match="1 labels for 2 questions"):
        pair_labels(asked, plain[:1])
