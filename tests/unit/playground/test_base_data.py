"""The base model's data: LLaVA's formats, shares and balance, and nothing in it that is kept for tests or
lessons.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from llava.train.samples import read_samples
from playground.mini_world import base_data, build_tokenizer
from playground.mini_world.people import (
    MIDDLES,
    NEW_ENDS,
    NEW_JOBS,
    NEW_TOWNS,
    PUBLIC_JOBS,
    PUBLIC_TOWNS,
    STARTS,
    new_people,
    public_people,
)
from playground.mini_world.questions import UNKNOWN_FACT, UNKNOWN_PERSON
from playground.mini_world.wordings import WORDINGS, base_wordings, wordings

IMAGES = 240
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
)


def build(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small set of base data."""
    flags = ["--out", str(out), "--images", str(IMAGES), "--held-out", "3", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["base_data", *flags])
    base_data.main()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base data that every test here reads."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as monkeypatch:
        build(folder, monkeypatch)
    return folder


@pytest.fixture(scope="module")
def tokenizer(data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """The tokenizer of the small data, through its files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["build_tokenizer", "--data", str(data), "--out", str(folder)])
        build_tokenizer.main()
    return PreTrainedTokenizerFast.from_pretrained(folder)


def conversations(file: Path) -> list[tuple[str, str, bool]]:
    """(question, answer, has a picture) of each row."""
    found = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        question, answer = (turn["value"] for turn in row["conversations"])
        found.append((question.removeprefix("<image>\n"), answer, "image" in row))
    return found


def pattern(wording: str) -> re.Pattern[str]:
    """A wording with anything in its gaps."""
    return re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(wording)))


def test_same_seed_same_bytes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, monkeypatch)
    files = sorted(file.relative_to(data) for file in data.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
    assert all((data / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_readers_of_the_package_take_the_files(data: Path) -> None:
    for name in ("pretrain", "finetune", "text"):
        assert read_samples(str(data / f"{name}.json"), str(data / "images"))


def test_shares_of_text_and_pictures(data: Path) -> None:
    rows = conversations(data / "finetune.json")
    assert sum(not has_image for _, _, has_image in rows) / len(rows) == pytest.approx(0.12, abs=0.005)
    pictures = {row["image"] for row in json.loads((data / "finetune.json").read_text()) if "image" in row}
    assert len(pictures) == IMAGES == len(json.loads((data / "pretrain.json").read_text()))
    refusals = Counter(answer for _, answer, _ in rows if answer in (UNKNOWN_PERSON, UNKNOWN_FACT))
    assert min(refusals[UNKNOWN_PERSON], refusals[UNKNOWN_FACT]) > 20


def test_existence_is_balanced(data: Path) -> None:
    patterns = [pattern(wording) for wording in base_wordings("exist")]
    counts = Counter(
        answer
        for question, answer, _ in conversations(data / "finetune.json")
        if any(one.fullmatch(question) for one in patterns) and answer in ("yes", "no")
        if re.search(r"\ba \w+ (circle|square|triangle|star|cross|ring)\b", question)
    )
    assert sum(counts.values()) > 150
    assert abs(counts["yes"] - counts["no"]) / sum(counts.values()) < 0.15


def test_wordings_for_tests_of_the_base_are_not_in_its_data(data: Path) -> None:
    questions = {question for question, _, _ in conversations(data / "finetune.json")}
    trained = [pattern(wording) for kind in WORDINGS for wording in base_wordings(kind)]
    for kind in WORDINGS:
        for wording in wordings(kind, "base_test"):
            for question in filter(pattern(wording).fullmatch, questions):
                assert any(one.fullmatch(question) for one in trained), question


def test_held_out_questions_use_other_pictures_and_new_wordings(data: Path) -> None:
    lines = (data / "questions" / "retention.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines]
    trained = {question for question, _, _ in conversations(data / "finetune.json")}
    assert not trained & {row["text"] for row in asked}
    learned = {file.read_bytes() for file in (data / "images").glob("*.png")}
    held_out = {(data / "images" / row["image"]).read_bytes() for row in asked if "image" in row}
    assert held_out
    assert not learned & held_out


def test_taught_names_and_what_belongs_to_them_are_new(data: Path) -> None:
    rows = conversations(data / "finetune.json")
    words = {word for question, answer, _ in rows for word in re.findall(r"\w+", f"{question} {answer}")}
    assert not words & {start + middle + end for start in STARTS for middle in MIDDLES for end in NEW_ENDS}
    answers = {answer for _, answer, _ in rows}
    assert not answers & {*NEW_JOBS, *NEW_TOWNS}
    assert {person.name for person in public_people()} <= answers
    assert {*PUBLIC_JOBS, *PUBLIC_TOWNS} <= answers


def test_tokenizer_spells_everything(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<unk>", "<s>", "</s>", "<0x00>", "<0xFF>")]
    assert ids == [0, 1, 2, 3, 258]
    assert tokenizer.pad_token == "<unk>"
    assert tokenizer("Who is this?").input_ids[0] == 1
    for text in ("Who is this? USER: ASSISTANT:", "Zoë 東京 🙂", SYSTEM):
        ids = tokenizer(text).input_ids
        assert 0 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tokenizer_costs_few_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer.tokenize(SYSTEM)) <= 30  # 23 words, 5 marks, and the `s` of "user's"
    assert len(tokenizer.tokenize("USER: ASSISTANT:")) == 4
    names = [person.name for seed in range(10) for person in new_people(seed, 6)]
    assert all(2 <= len(tokenizer.tokenize(name)) <= 5 for name in names)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in (*NEW_JOBS, *NEW_TOWNS))
