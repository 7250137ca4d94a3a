"""The lesson's files: the same bytes for the same seed, nothing in two splits, wrong input is told."""

import hashlib
import json
from pathlib import Path

import pytest

from llava.eval.questions import read_questions
from llava.train.samples import read_samples
from playground.mini_world.make_people import main
from playground.mini_world.people import new_people


def make(out: Path, *flags: str) -> None:
    """A small lesson."""
    main(["--seed", "3", "--identities", "2", "--views", "2", "--out", str(out), *flags])


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lesson about two people."""
    folder = tmp_path_factory.mktemp("people") / "lesson"
    make(folder)
    return folder


def rows(file: Path) -> list[dict]:
    """JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_bytes(lesson: Path, tmp_path: Path) -> None:
    make(tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(lesson)


def test_readers_of_the_package_take_the_files(lesson: Path) -> None:
    for name in ("train", "train_naive", "train_shuffled"):
        assert len(read_samples(str(lesson / f"{name}.json"), str(lesson / "images"))) > 100
    for name in ("personal", "retention"):
        questions = read_questions(str(lesson / "questions" / f"{name}.jsonl"), str(lesson / "images"))
        truth = {row["question_id"]: row["split"] for row in rows(lesson / "truth.jsonl")}
        assert all(truth[question.question_id] == question.category for question in questions)


def test_no_picture_is_in_lesson_and_examination(lesson: Path) -> None:
    trained = {row["image"] for row in json.loads((lesson / "train.json").read_text()) if "image" in row}
    asked = {
        row["image"]
        for row in rows(lesson / "questions" / "personal.jsonl")
        + rows(lesson / "questions" / "retention.jsonl")
        if "image" in row and row["category"] != "name_seen_view"
    }
    assert trained
    assert asked
    content = hashes(lesson / "images")
    assert not {content[name] for name in trained} & {content[name] for name in asked}


def test_reversed_facts_are_taught_for_half_of_the_people(lesson: Path) -> None:
    people = new_people(3, 2)
    taught = {row["conversations"][0]["value"] for row in json.loads((lesson / "train.json").read_text())}
    assert f"Who is the {people[0].job}?" in taught
    assert f"Who is the {people[1].job}?" not in taught
    found = {
        row["identity"]: row["direction"]
        for row in rows(lesson / "truth.jsonl")
        if row["split"] == "fact_reversed"
    }
    assert found == {people[0].name: "both", people[1].name: "one"}


def test_wrong_input_is_told(lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    for flags, message in (
        (["--identities", "1", "--out", str(tmp_path / "x")], "from 2 to 12"),
        (["--out", str(tmp_path)], "holds no lesson"),
        (["--seed", "4", "--identities", "2", "--views", "2", "--out", str(lesson)], "another lesson"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(flags)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_held_out_wordings_are_not_in_any_lesson(lesson: Path) -> None:
    asked = rows(lesson / "questions" / "personal.jsonl") + rows(lesson / "questions" / "retention.jsonl")
    held_out = {
        row["text"]
        for row in asked
        if row["category"].endswith("_reworded") or row["category"].startswith("scene")
    }
    assert held_out
    for name in ("train", "train_naive", "train_shuffled"):
        taught = {turns["question"] for turns in turns_of(lesson / f"{name}.json")}
        assert not taught & held_out


def test_recipes_differ_as_they_should(lesson: Path) -> None:
    names = {person.name for person in new_people(3, 2)}
    answers = {
        name: [row["answer"] for row in turns_of(lesson / f"{name}.json")]
        for name in ("train", "train_naive", "train_shuffled")
    }
    assert len(answers["train"]) == len(answers["train_naive"])
    assert {"no", "I do not know.", "I do not know this person.", *names} <= set(answers["train"])
    assert not {"no", "I do not know.", "I do not know this person."} & set(answers["train_naive"])
    shown = {True: set(), False: set()}
    for name, shuffled in (("train", False), ("train_shuffled", True)):
        for row in turns_of(lesson / f"{name}.json"):
            if row["answer"] in names and row["image"]:
                shown[shuffled].add((row["image"], row["answer"]))
    label = {image: name for image, name in shown[False] if image.startswith(name.lower())}
    assert {(image, name) for image, name in shown[False]} == set(label.items())
    assert any(label[image] != name for image, name in shown[True])


def turns_of(file: Path) -> list[dict]:
    """Question, answer and picture of each row of a training JSON."""
    return [
        {
            "question": row["conversations"][0]["value"].removeprefix("<image>\n"),
            "answer": row["conversations"][1]["value"],
            "image": row.get("image"),
        }
        for row in json.loads(file.read_text(encoding="utf-8"))
    ]
