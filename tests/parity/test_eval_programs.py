"""The original's answering programs: recorded runs are equal, recorded failures are done better."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava.eval import model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_science, run_llava
from tests.parity.golden import BASES, DATA, golden

GOLDEN = golden("eval_cli/runs.json")
RUNS = {run["name"]: run for run in GOLDEN["runs"]}
MIN_MARGIN = 0.01  # least distance of the best two logits at a step; logits agree within 6e-6 (test_forward)
BATCH = "4"
RECORDED_TEMPLATE = ["--conv-mode", "llava_v1"]
"""The default of the original, where ours is the template of the checkpoint."""
LOADER = "loader_vicuna_v1"
ROUNDS = "mmbench_all_rounds_cn"

Rows = list[dict]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden configurations name their vision tower relative to this folder."""
    monkeypatch.chdir(DATA / "models")


def arguments(run: dict, answers: Path | str) -> list[str]:
    """A run's recorded arguments with real places."""
    places = {"<images>": str(DATA / "images"), "<answers>": str(answers)}
    given = [places.get(text, text) for text in run["args"]]
    given = [str(DATA / text) if text.startswith("eval_cli/") else text for text in given]
    return given if "--conv-mode" in given else given + RECORDED_TEMPLATE


def read(answers: Path) -> Rows:
    """The lines of an answers file, without their random ids."""
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "answer_id"} for row in rows]


def answer(run: dict, answers: Path, *flags: str) -> Rows:
    """The answers of a run in this process."""
    importlib.import_module(run["program"]).main([*arguments(run, answers), *flags])
    return read(answers)


def without_ties(rows: Rows, run: dict) -> Rows:
    """Rows with the text left out where a tie may break either way."""
    margins = run["min_top1_margin_per_row"]
    assert len(rows) == len(margins)
    return [
        row if margin >= MIN_MARGIN else {**row, "text": None}
        for row, margin in zip(rows, margins, strict=True)
    ]


@pytest.mark.parametrize("name", RUNS)
def test_answers_are_the_originals(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    wanted = read(DATA / run["expected"])
    found = answer(run, tmp_path / "single.jsonl", "--batch-size", "1")
    first = (tmp_path / "single.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert list(json.loads(first)) == run["raw_first_line_keys"]
    assert without_ties(found, run) == without_ties(wanted, run)
    together = answer(run, tmp_path / "together.jsonl", "--batch-size", BATCH)
    assert without_ties(together, run) == without_ties(found, run)


def test_nearly_all_texts_are_compared() -> None:
    margins = [margin for run in RUNS.values() for margin in run["min_top1_margin_per_row"]]
    ties = sum(margin < MIN_MARGIN for margin in margins)
    print(f"{ties} of {len(margins)} texts not compared: two tokens were nearly equally likely")  # noqa: T201
    assert ties < len(margins) / 20
    programs = {run["program"].rpartition(".")[2] for run in RUNS.values()}
    assert programs == {"model_vqa_loader", "model_vqa", "model_vqa_science", "model_vqa_mmbench"}


def test_bytes_that_are_no_text_are_compared_too() -> None:
    """The untrained model answers with them; whole characters beside them must stay (`decode_text`)."""
    run = RUNS["loader_pretrain_projector"]
    kept = without_ties(read(DATA / run["expected"]), run)
    assert any("\ufffd" in (row["text"] or "") for row in kept)


def questions(tmp_path: Path, *rows: dict) -> list[str]:
    """The loader's arguments for these questions."""
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = arguments(RUNS[LOADER], tmp_path / "answers.jsonl")
    given[given.index("--question-file") + 1] = str(file)
    return given


@pytest.mark.parametrize("batch_size", ["1", BATCH])
def test_beams_give_the_recorded_answers(batch_size: str, tmp_path: Path) -> None:
    """Recorded by `generate`; beside them questions of other lengths, with and without a picture."""
    cases = [case for case in golden("generate/greedy.json")["llava-v1.5-tiny"] if "num_beams" in case]
    assert {case["num_beams"] for case in cases} == {3}
    assert {case["conv_mode"] for case in cases} == {"vicuna_v1"}
    rows = [
        {"question_id": number, "image": f"{case['images']}.png", "text": case["question"]}
        for number, case in enumerate(cases)
    ]
    rows += [{"question_id": "a", "text": "Name one animal."}, {**rows[0], "text": "Is there a red boat?"}]
    model_vqa_loader.main([*questions(tmp_path, *rows), "--num_beams", "3", "--batch-size", batch_size])
    found = [row["text"] for row in read(tmp_path / "answers.jsonl")]
    assert found[: len(cases)] == [case["text"] for case in cases]
    assert len(found) == len(rows)


def one_shot(case: dict) -> list[str]:
    """The recorded arguments of run_llava with real places."""
    given = list(case["args"])
    place = given.index("--image-file") + 1
    given[place] = ",".join(str(DATA / "images" / name) for name in given[place].split(","))
    return given if "--conv-mode" in given else given + RECORDED_TEMPLATE


def last_line(case: dict) -> str:
    """What run_llava printed, without its warning about a template other than the folder's name suggests."""
    return case["stdout"].splitlines()[-1] + "\n"


@pytest.mark.parametrize("case", GOLDEN["run_llava"])
def test_one_question_is_answered_the_same(case: dict, capsys: pytest.CaptureFixture[str]) -> None:
    run_llava.main(one_shot(case))
    assert capsys.readouterr().out == last_line(case)


@pytest.mark.parametrize("case", GOLDEN["run_llava"])
def test_eval_model_takes_any_object(case: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """The original's README makes an object of a new class; attributes that are missing have defaults."""
    given = one_shot(case)
    values = {
        flag.removeprefix("--").replace("-", "_"): value
        for flag, value in zip(given[::2], given[1::2], strict=True)
    }
    values |= {"temperature": 0, "max_new_tokens": int(values["max_new_tokens"])}
    extra = {"model_base": None, "model_name": "any", "sep": ",", "top_p": None, "num_beams": 1}
    assert run_llava.eval_model(SimpleNamespace(**values)) + "\n" == last_line(case)
    run_llava.eval_model(type("Args", (), {**values, **extra})())
    assert capsys.readouterr().out == last_line(case) * 2


SEVERAL = [
    pytest.param(model, case, id=f"{model}-{number}")
    for model, cases in golden("generate/greedy.json").items()
    for number, case in enumerate(cases)
    if isinstance(case["images"], list)
]


@pytest.mark.parametrize(("model", "case"), SEVERAL)
def test_several_pictures_come_in_front_each_on_its_line(model: str, case: dict) -> None:
    """As recorded by `generate`; the original's run_llava puts one mark there however many pictures come."""
    assert len(case["images"]) > 1
    assert case["min_top1_margin"] >= MIN_MARGIN
    found = run_llava.eval_model(
        SimpleNamespace(
            model_path=model,
            model_base=BASES.get(model),
            image_file=";".join(str(DATA / "images" / f"{name}.png") for name in case["images"]),
            sep=";",
            query=case["question"],
            conv_mode=case["conv_mode"],
            max_new_tokens=24,
        )
    )
    assert found == case["text"].strip()


def test_the_module_runs_as_a_command() -> None:
    case = GOLDEN["run_llava"][0]
    root = str(DATA.parents[2])
    result = subprocess.run(
        [sys.executable, "-m", "llava.eval.run_llava", *one_shot(case)],
        env={**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == last_line(case)


@pytest.mark.parametrize("program", [model_vqa_loader, model_vqa])
def test_a_missing_picture_is_told_before_the_model_is_loaded(
    program: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.model.builder.load_pretrained_model", None)
    rows = [{"question_id": number, "image": "missing.png", "text": f"Who is {number}?"} for number in (1, 2)]
    with pytest.raises(SystemExit) as caught:
        program.main(questions(tmp_path, *rows))  # type: ignore[attr-defined]
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "2 problems" in message
    assert message.count("'missing.png' is not in") == 2
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize(("num_chunks", "chunk"), [(30, 29), (7, 6)])
def test_more_chunks_than_questions_leave_an_empty_file(num_chunks: int, chunk: int, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    flags = ["--num-chunks", str(num_chunks), "--chunk-idx", str(chunk)]
    assert answer(RUNS[LOADER], answers, *flags) == []
    assert answers.read_bytes() == b""


def test_the_answers_file_may_be_a_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(RUNS["loader_max_new_tokens_2"], "answer.jsonl")
    given[given.index("--model-path") + 1] = str(DATA / "models" / "llava-v1.5-tiny")
    monkeypatch.chdir(tmp_path)
    model_vqa_loader.main(given)
    assert len(read(tmp_path / "answer.jsonl")) == 11


def test_a_question_without_a_picture_is_answered(tmp_path: Path) -> None:
    """Under the vqa programs as under ScienceQA's, where the original answers it."""
    wanted = {row["prompt"]: row["text"] for row in read(DATA / RUNS["science_plain"]["expected"])}
    model_vqa_loader.main(questions(tmp_path, {"question_id": 1, "text": "Name one animal."}))
    assert read(tmp_path / "answers.jsonl")[0]["text"] == wanted["Name one animal."] == "A dog is an animal."


def test_grey_pictures_are_answered_by_scienceqa_as_by_the_others(tmp_path: Path) -> None:
    names = ["grey.png", "grey_alpha.png", "bilevel.png", "palette.png"]
    rows = [{"question_id": name, "image": name, "text": "What is this?"} for name in names]
    model_vqa_loader.main(questions(tmp_path, *rows))
    loader = {row["question_id"]: row["text"] for row in read(tmp_path / "answers.jsonl")}
    science = [
        {"id": name, "image": name, "conversations": [{"from": "human", "value": "<image>\nWhat is this?"}]}
        for name in names
    ]
    (tmp_path / "science.json").write_text(json.dumps(science), encoding="utf-8")
    given = arguments(RUNS["science_plain"], tmp_path / "science.jsonl")
    given[given.index("--question-file") + 1] = str(tmp_path / "science.json")
    model_vqa_science.main([*given, "--max_new_tokens", "24"])
    assert {row["question_id"]: row["text"] for row in read(tmp_path / "science.jsonl")} == loader


@pytest.mark.parametrize("name", ["vqa_vicuna_v1", "science_single_pred_prompt", ROUNDS])
def test_an_interrupted_file_is_taken_up(name: str, tmp_path: Path) -> None:
    """Also between two rounds of one question; finished lines stay as they are."""
    run, answers = RUNS[name], tmp_path / "answers.jsonl"
    whole = answer(run, answers, "--batch-size", BATCH)
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    assert answer(run, answers, "--batch-size", BATCH) == whole
    assert answers.read_bytes().splitlines(keepends=True)[:2] == lines[:2]


def test_answers_to_another_instruction_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompts of the file are the same, so that only the settings tell them apart."""
    answers = tmp_path / "answers.jsonl"
    whole = answer(RUNS["mmbench_single_pred"], answers)
    with pytest.raises(SystemExit):
        answer(RUNS["mmbench_no_prompt"], answers)
    assert "other settings" in capsys.readouterr().err
    assert read(answers) == whole


def test_rounds_of_a_question_stay_in_one_chunk(tmp_path: Path) -> None:
    chunks = [
        answer(RUNS[ROUNDS], tmp_path / f"{chunk}.jsonl", "--num-chunks", "3", "--chunk-idx", str(chunk))
        for chunk in range(3)
    ]
    assert [row for rows in chunks for row in rows] == answer(RUNS[ROUNDS], tmp_path / "whole.jsonl")
    asked = [{row["question_id"] for row in rows} for rows in chunks]
    assert not asked[0] & asked[1]
    assert asked[2] == set()


@pytest.mark.parametrize(
    ("program", "name", "flags"),
    [
        (model_vqa_science, "science_plain", ["--answer-prompter"]),
        (model_vqa_mmbench, "mmbench_no_prompt", ["--image-folder", "anywhere"]),
    ],
)
def test_flags_without_effect_are_told_once(
    program: object, name: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, answers = RUNS[name], tmp_path / "answers.jsonl"
    assert without_ties(answer(run, answers, *flags), run) == without_ties(read(DATA / run["expected"]), run)
    assert capsys.readouterr().err.count(f"note: {flags[0]} does nothing") == 1
