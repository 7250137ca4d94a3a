"""VQAv2 and VizWiz: soft accuracy with annotations in both layouts, whatever the order of lines."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.eval import eval_vqa
from llava.eval.metrics.vqa import VqaQuestion, score
from llava.eval.results_file import read_results
from llava.eval.scored_file import read_scored
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

PEOPLE = {
    1: (9, "yes/no", ["yes"] * 10),
    2: (9, "number", ["2"] * 4 + ["two"] * 2 + ["3"] * 4),
    3: (8, "other", ["a red car"] * 3 + ["car"] * 7),
    4: (7, "other", ["dog"] * 2 + ["cat"] * 8),
}
SAID = {1: "Yes.", 2: "Two", 3: "red car", 4: "dog"}
WORTH = {1: 1.0, 2: 1.0, 3: (3 * 2 / 3 + 7) / 10, 4: (2 * 1 / 3 + 8 * 2 / 3) / 10}


def people(texts: list[str]) -> list[dict]:
    """What people answered, as the files have it."""
    return [{"answer": text, "answer_confidence": "yes", "answer_id": k} for k, text in enumerate(texts, 1)]


def vqav2(folder: Path) -> list[str]:
    """VQAv2's files and the command line."""
    annotations = [
        {"question_id": name, "image_id": image, "answer_type": kind, "question_type": "what",
         "multiple_choice_answer": texts[0], "answers": people(texts)}
        for name, (image, kind, texts) in PEOPLE.items()
    ]  # fmt: skip
    questions = [{"question_id": name, "image_id": row[0], "question": "?"} for name, row in PEOPLE.items()]
    (folder / "a.json").write_text(json.dumps({"info": {}, "annotations": annotations}))
    (folder / "q.json").write_text(json.dumps({"info": {}, "questions": questions}))
    write_lines(vqa_answers(), folder / "mine.jsonl")
    return ["--questions", str(folder / "q.json"), "--annotations", str(folder / "a.json"), "--answers",
            str(folder / "mine.jsonl")]  # fmt: skip


def vqa_answers() -> list[dict]:
    return [{"question_id": name, "text": text} for name, text in SAID.items()]


def vizwiz(folder: Path) -> list[str]:
    """VizWiz' files, named by picture, and the command line without a question file."""
    rows = [
        {
            "image": f"v{name}.jpg",
            "question": "?",
            "answers": people(texts),
            "answer_type": kind,
            "answerable": 1,
        }
        for name, (_, kind, texts) in PEOPLE.items()
    ]
    (folder / "val.json").write_text(json.dumps(rows))
    write_lines([{"question_id": f"v{name}.jpg", "text": text} for name, text in SAID.items()],
                folder / "mine.jsonl")  # fmt: skip
    return ["--annotations", str(folder / "val.json"), "--answers", str(folder / "mine.jsonl")]


MEAN = 100 * sum(WORTH.values()) / 4


def test_no_order_of_lines_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, printed = vqav2(tmp_path), set()
    for rows in orders(vqa_answers()):
        write_lines(rows, tmp_path / "mine.jsonl")
        eval_vqa.main([*flags, "--results-dir", str(tmp_path)])
        printed.add(capsys.readouterr().out)
    (text,) = printed
    assert before_evidence(text) == (
        f"Accuracy: {MEAN:.2f}% (4 questions)\nNumber: 100.00% (1 questions)\n"
        f"Other: {50 * (WORTH[3] + WORTH[4]):.2f}% (2 questions)\nYes/no: 100.00% (1 questions)\n"
    )
    results = read_results(tmp_path / "results.json")
    assert results.benchmark == "vqav2"
    assert set(results.truth) == {"a.json", "q.json"}
    for row in read_scored(tmp_path / "scored.jsonl"):
        assert row.value == pytest.approx(WORTH[int(row.question_id)]), row
        assert row.image == str(PEOPLE[int(row.question_id)][0])


def test_vizwiz_is_known_by_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = vizwiz(tmp_path)
    eval_vqa.main(flags)
    by_picture = capsys.readouterr().out
    assert f"Accuracy: {MEAN:.2f}% (4 questions)" in by_picture
    asked = [{"question_id": name, "image": f"v{name}.jpg", "text": "?"} for name in PEOPLE]
    write_lines(asked, tmp_path / "q.jsonl")
    write_lines(vqa_answers(), tmp_path / "mine.jsonl")
    eval_vqa.main([*flags, "--questions", str(tmp_path / "q.jsonl"), "--results-dir", str(tmp_path)])
    assert capsys.readouterr().out == by_picture
    assert read_results(tmp_path / "results.json").benchmark == "vizwiz"


def test_a_part_of_the_questions_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by one line, as llava.eval.model_vqa_loader takes them."""
    flags = vqav2(tmp_path)
    write_lines([{"question_id": 3, "image": "x.jpg", "text": "?"}], tmp_path / "q.json")
    write_lines(vqa_answers()[2:3], tmp_path / "mine.jsonl")
    eval_vqa.main(flags)
    assert f"Accuracy: {100 * WORTH[3]:.2f}% (1 questions)" in capsys.readouterr().out


def test_missing_answers_earn_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = vqav2(tmp_path)
    write_lines(vqa_answers()[:2], tmp_path / "mine.jsonl")
    eval_vqa.main(flags)
    told = capsys.readouterr().out
    assert "Accuracy: 50.00%" in told
    assert "Coverage: 50.00% (2 of 4 questions have an answer)" in told
    assert "2 missing" in told


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, refusal: Failing) -> None:
    flags = vqav2(tmp_path)
    write_lines([*vqa_answers(), {"question_id": 5, "text": ""}], tmp_path / "mine.jsonl")
    assert "1 answer belongs to no question, first 5" in refusal(eval_vqa.main, *flags)
    write_lines([*vqa_answers(), vqa_answers()[0]], tmp_path / "mine.jsonl")
    assert "answered more than once, first 1" in refusal(eval_vqa.main, *flags)
    (tmp_path / "q.json").write_text('{"questions": [{"question_id": 7}, {"question_id": 1}]}')
    assert "1 question has no annotation, first 7" in refusal(eval_vqa.main, *flags)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("{}", "holds no rows"),
        ("[]", "holds no rows"),
        ("[3]", "row 0: found a number"),
        ('[{"image": "a", "question": "?"}]', "files of the test splits have none"),
        ('[{"image": "a", "answers": [{"answer": "x"}, "y"]}]', "a list of at least 2"),
        (
            '{"annotations": [{"question_id": 1, "answers": [{"answer": "x"}, {"answer": "y"}]}]}',
            "row 0, image_id",
        ),
    ],
)
def test_broken_annotations_are_told(tmp_path: Path, refusal: Failing, content: str, told: str) -> None:
    flags = vizwiz(tmp_path)
    (tmp_path / "val.json").write_text(content)
    assert told in refusal(eval_vqa.main, *flags)


def test_a_picture_that_is_annotated_twice_is_told(tmp_path: Path, refusal: Failing) -> None:
    flags = vizwiz(tmp_path)
    rows = json.loads((tmp_path / "val.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps([*rows, rows[0]]))
    assert "1 id stands twice, first v1.jpg" in refusal(eval_vqa.main, *flags)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["a dog", "Dog.", "cat", "2", "two"]), min_size=10, max_size=10), st.randoms()
)
def test_values_are_shares_in_any_order_of_people(texts: list[str], rng) -> None:
    rows = score([VqaQuestion("1", "a", tuple(texts), None)], {"1": "dog"})
    dogs = sum(text in ("a dog", "Dog.") for text in texts)
    wanted = (dogs * min(1, max(dogs - 1, 0) / 3) + (10 - dogs) * min(1, dogs / 3)) / 10
    assert rows[0].value == pytest.approx(wanted)
    rng.shuffle(texts)
    assert score([VqaQuestion("1", "a", tuple(texts), None)], {"1": "dog"}) == rows
