"""Answers of a real tiny model when pictures are bad, memory is full, or a file belongs to another run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.eval import engine as engine_module
from llava.eval import model_vqa_loader
from llava.eval.answers import AnswerFile
from llava.eval.drawing import Decoding
from llava.eval.outcomes import Failure
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.parity.golden import DATA
from tests.unit.eval.asking import ask

MODEL = DATA / "models" / "llava-v1.5-tiny"
COUNT = 300
BAD = {"17.png": "does not exist", "123.png": "is damaged", "250.png": "1 x 60000 pixels"}

Rows = list[dict]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden configuration names its vision tower relative to this folder."""
    monkeypatch.chdir(DATA / "models")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Questions about pictures of their own, 1 % of which are bad."""
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        colour = (number % 256, 3 * number % 256, 7 * number % 256)
        Image.new("RGB", (6, 4), colour).save(tmp_path / "images" / f"{number}.png")
    write_questions(tmp_path, COUNT)
    return tmp_path


def write_questions(desk: Path, count: int, **changes: object) -> None:
    """A question about each picture; `changes` are those of the second one."""
    rows = [
        {"question_id": number, "image": f"{number}.png", "text": f"What is in picture {number}?"}
        for number in range(count)
    ]
    rows[1] |= changes
    lines = (json.dumps(row) + "\n" for row in rows)
    (desk / "questions.jsonl").write_text("".join(lines), encoding="utf-8")


def spoil(images: Path) -> dict[str, bytes]:
    """Make pictures bad; returns what they were."""
    good = {name: (images / name).read_bytes() for name in BAD}
    (images / "17.png").unlink()
    (images / "123.png").write_bytes(good["123.png"][:-30])
    Image.new("RGB", (1, 60000)).save(images / "250.png")
    return good


def run(desk: Path, *flags: str, model: Path = MODEL) -> int:
    """Answer in this process; the exit code."""
    try:
        model_vqa_loader.main(
            ["--model-path", str(model), "--question-file", str(desk / "questions.jsonl"),
             "--image-folder", str(desk / "images"), "--answers-file", str(desk / "answers.jsonl"),
             "--max_new_tokens", "3", "--batch-size", "16", "--no-early-stop", *flags]
        )  # fmt: skip
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def lines_of(desk: Path) -> list[bytes]:
    """The answers file's lines."""
    return (desk / "answers.jsonl").read_bytes().splitlines()


def test_bad_pictures(desk: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog) -> None:
    good = spoil(desk / "images")
    assert run(desk) == 3
    told = capsys.readouterr().err
    before = lines_of(desk)
    rows: Rows = [json.loads(line) for line in before]
    assert [row["question_id"] for row in rows] == list(range(COUNT))
    failed = {f"{row['question_id']}.png": row for row in rows if row["metadata"]}
    assert failed.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert failed[name]["text"] == ""
        assert reason in failed[name]["metadata"]["error"]
        assert str(desk) not in failed[name]["metadata"]["error"], "answers name no place of this machine"
        assert f"  {name.removesuffix('.png')}: " in told
    assert "3 of 300 questions (1.0%) could not be answered" in told
    for name, content in good.items():
        (desk / "images" / name).write_bytes(content)
    assert run(desk) == 0
    assert "300 answers (297 were there)" in capsys.readouterr().err
    after = lines_of(desk)
    changed = {f"{number}.png" for number in range(COUNT) if before[number] != after[number]}
    assert changed == BAD.keys(), "all other lines are the same bytes"
    assert all(json.loads(line)["metadata"] == {} for line in after)
    happened = f"{COUNT} lines, 3 with the reason, exit code 3; mended: 3 asked again, 0 other lines changed"
    fault_log("E4 1 % of pictures missing, cut off, too large", happened, SURVIVED, count=3)


def test_strict_stops(desk: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog) -> None:
    """At once for what is missing, before the model is there; at the picture for what is damaged."""
    write_questions(desk, 40)
    good = (desk / "images" / "17.png").read_bytes()
    (desk / "images" / "17.png").unlink()
    assert run(desk, "--strict") == 2
    assert "'17.png' is not in" in capsys.readouterr().err
    assert not (desk / "answers.jsonl").exists()
    (desk / "images" / "17.png").write_bytes(good[:-30])
    assert run(desk, "--strict") == 2
    assert "question 17: the picture" in capsys.readouterr().err
    (desk / "images" / "17.png").write_bytes(good)
    assert run(desk, "--strict") == 0
    assert len(lines_of(desk)) == 40
    fault_log(
        "E4 bad pictures with --strict", "stopped with the question's id, went on when mended", REFUSED, 2
    )


def test_a_wrong_folder_is_refused(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Most pictures missing are no lost pictures; nothing is written."""
    write_questions(desk, 40)
    (desk / "wrong").mkdir()
    assert run(desk, "--image-folder", str(desk / "wrong")) == 2
    assert "40 problems" in capsys.readouterr().err
    assert not (desk / "answers.jsonl").exists()


def test_memory_is_full(monkeypatch: pytest.MonkeyPatch, fault_log: FaultLog) -> None:
    """For one batch, and for two questions whatever the batch: they get a line, nobody else notices."""
    asked = ask(11, count=40)
    decoding = Decoding(max_new_tokens=8)
    wanted = asked.alone(decoding)
    decode: Callable[..., list] = engine_module.decode
    heavy, failures, tried = {7, 30}, [0], [0]

    def limited(model: object, rows: engine_module.Rows, choose: object, **kwargs: object) -> list:
        tried[0] += 1
        if heavy & {one.index for one in rows.answers} or tried[0] == 1:
            failures[0] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, rows, choose, **kwargs)

    monkeypatch.setattr(engine_module, "decode", limited)
    found = list(asked.engine(decoding, 8).answer(asked.questions))
    assert sorted(index for index, _ in found) == list(range(40))
    answers = dict(found)
    assert {index for index, text in answers.items() if isinstance(text, Failure)} == heavy
    assert all(answers[index] == wanted[index] for index in range(40) if index not in heavy)
    fault_log(
        "E5 memory full", "batch halved to 1, 2 of 40 questions got an error line", SURVIVED, failures[0]
    )


def test_the_model_raises(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    """A bug is not hidden, and costs the batch that it meets."""
    write_questions(desk, 60)
    decode: Callable[..., list] = engine_module.decode
    calls = [0]

    def broken(*args: object, **kwargs: object) -> list:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("device-side assert triggered")
        return decode(*args, **kwargs)

    monkeypatch.setattr(engine_module, "decode", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run(desk)
    before = lines_of(desk)
    assert run(desk) == 0
    kept = int(capsys.readouterr().err.partition("60 answers (")[2].split()[0])
    assert kept >= 16, "what was answered and had to wait is kept too"
    assert lines_of(desk)[: len(before)] == before
    assert [json.loads(line)["question_id"] for line in lines_of(desk)] == list(range(60))
    fault_log("E5 model raises another error", f"raised; {kept} answers kept, rerun completes", SURVIVED)


def other_weights(desk: Path) -> Path:
    """The same checkpoint with one weight changed."""
    copy = desk / "other" / MODEL.name
    shutil.copytree(MODEL, copy)
    file = next(copy.glob("*.safetensors"), None)
    if file is not None:
        weights = load_file(file)
        name = sorted(weights)[0]
        weights[name].view(-1)[0] += 1
        save_file(weights, file)
    else:
        file = next(copy.glob("pytorch_model*.bin"))
        state = torch.load(file, weights_only=True)
        state[sorted(state)[0]].view(-1)[0] += 1
        torch.save(state, file)
    return copy


def other_config(desk: Path) -> Path:
    """The same checkpoint, which crops pictures in place of padding them or the reverse."""
    copy = desk / "other" / MODEL.name
    shutil.copytree(MODEL, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["image_aspect_ratio"] = "square" if config.get("image_aspect_ratio") == "pad" else "pad"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


CHANGES = {
    "temperature": (["--temperature", "0.5"], ["temperature: then 0.0, now 0.5"]),
    "two flags": (["--temperature", "0.5", "--seed", "3"], ["seed: then 0, now 3", "temperature: then"]),
    "length": (["--max_new_tokens", "4"], ["max_new_tokens: then 3, now 4"]),
    "beams": (["--num_beams", "2"], ["num_beams: then 1, now 2"]),
    "template": (["--conv-mode", "llava_v0"], ["conv_mode: then 'vicuna_v1'", "now 'llava_v0'"]),
    "weights": (other_weights, ["weights: then "]),
    "configuration": (other_config, ["config: then "]),
    "picture of a question": ({"image": "2.png"}, ["questions: the file had others then"]),
    "text of a question": ({"text": "Who?"}, ["line 2 answers question 1", "has question 1, 'Who?'"]),
    "id as a text": ({"question_id": "1"}, ["line 2 answers question 1,", "has question '1'"]),
}


def test_other_runs_are_refused(desk: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog) -> None:
    """Each with its difference, the file untouched; --overwrite keeps it beside the new one."""
    write_questions(desk, 4)
    (desk / "more").mkdir()
    shutil.copytree(desk / "images", desk / "more" / "images")
    flags = ["--conv-mode", "vicuna_v1"]
    assert run(desk, *flags) == 0
    before = (desk / "answers.jsonl").read_bytes()
    moved = ["--image-folder", str(desk / "more" / "images")]
    changes = [*CHANGES.values(), (moved, ["image_folder: then "])]
    for change, wanted in changes:
        write_questions(desk, 4, **(change if isinstance(change, dict) else {}))
        model = change(desk) if callable(change) else MODEL
        capsys.readouterr()
        assert run(desk, *flags, *(change if isinstance(change, list) else []), model=model) == 2
        told = capsys.readouterr().err
        for part in wanted:
            assert part in told
        assert (desk / "answers.jsonl").read_bytes() == before
        shutil.rmtree(desk / "other", ignore_errors=True)
    write_questions(desk, 4)
    assert run(desk, *flags) == 0, "the same run again has nothing to do"
    assert run(desk, *flags, "--seed", "3", "--overwrite") == 0
    assert (desk / "answers.jsonl.bak").read_bytes() == before
    assert json.loads((desk / "answers.jsonl.run.json").read_text())["seed"] == 3
    fault_log("E7 other model, prompt, pictures, setting", "differences listed", REFUSED, len(changes))


def test_a_new_run_that_cannot_start_replaces_nothing(desk: Path) -> None:
    write_questions(desk, 4)
    assert run(desk) == 0
    before = (desk / "answers.jsonl").read_bytes()
    assert run(desk, "--overwrite", model=desk / "nowhere") == 2
    assert (desk / "answers.jsonl").read_bytes() == before
    assert not (desk / "answers.jsonl.bak").exists()


def test_early_stop(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    """A model that says nothing is stopped after its first answers, unless it is told to go on."""
    monkeypatch.setattr(engine_module, "decode_text", lambda tokenizer, tokens: " ")
    given = ["--model-path", str(MODEL), "--question-file", str(desk / "questions.jsonl"),
             "--image-folder", str(desk / "images"), "--answers-file", str(desk / "answers.jsonl"),
             "--max_new_tokens", "2", "--batch-size", "16"]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        model_vqa_loader.main(given)
    assert stop.value.code == 2
    assert "the first 32 answers say nothing (32 are empty, 0 repeat one word)" in capsys.readouterr().err
    assert len(lines_of(desk)) == 32, "what was answered is kept"
    model_vqa_loader.main([*given, "--no-early-stop"])
    assert len(lines_of(desk)) == COUNT
    fault_log("early stop: all answers empty", "stopped after 32 with the likely cause", REFUSED)


def test_more_shards_than_questions(desk: Path, fault_log: FaultLog) -> None:
    """Empty shards are empty files; all of them together answer every question."""
    write_questions(desk, 3)
    texts = []
    for chunk in range(5):
        answers = desk / f"5_{chunk}.jsonl"
        assert run(desk, "--num-chunks", "5", "--chunk-idx", str(chunk), "--answers-file", str(answers)) == 0
        texts += [json.loads(line)["question_id"] for line in answers.read_bytes().splitlines()]
    assert texts == [0, 1, 2]
    with AnswerFile(desk / "none.jsonl", []) as file:
        assert file.todo() == []
    fault_log("E8 more shards than questions", "empty files, nothing lost", SURVIVED, count=2)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "is empty"),
        ([{"question_id": 1, "text": "a"}, {"question_id": 1, "text": "a"}], "found 1 again"),
        ([{"question_id": 1, "text": "a"}, {"question_id": "1", "text": "a"}], "found '1' again"),
    ],
    ids=["zero questions", "an id twice", "an id as number and text"],
)
def test_odd_question_files(
    rows: Rows, told: str, desk: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    (desk / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run(desk) == 2
    assert told in capsys.readouterr().err
    fault_log("E8 zero questions, ids twice, ids of both kinds", "told with line and remedy", REFUSED)
