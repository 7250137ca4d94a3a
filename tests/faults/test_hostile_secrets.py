"""Keys of the environment are in no file and no log that a run writes."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from llava.eval import model_vqa_loader, run_record
from llava.train import recipe
from tests.e2e.conftest import BASE
from tests.faults.conftest import SURVIVED, FaultLog
from tests.unit.eval.chat_server import ChatServer, Reply, completion, question_of, serving

KEYS = {
    "HF_TOKEN": "hf_canaryOne1111111111",
    "HUGGING_FACE_HUB_TOKEN": "hf_canaryTwo2222222222",
    "OPENAI_API_KEY": "sk-canaryThree33333333",
    "WANDB_API_KEY": "canaryFour444444444444444444444444444444",
    "AWS_SECRET_ACCESS_KEY": "canaryFive55555555",
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of somebody with keys; logs as commands leave them do not last."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def told(folder: Path, *logs: str) -> list[str]:
    """Where a key is found: file or log, and the key's name."""
    contents = {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    contents |= {f"log {number}": log.encode() for number, log in enumerate(logs)}
    assert len(contents) > 2, "something must have been written"
    return [
        f"{place}: {name}"
        for place, text in contents.items()
        for name, key in KEYS.items()
        if key.encode() in text
    ]


def test_a_key_would_be_found(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(KEYS["HF_TOKEN"] if name == "b" else "", encoding="utf-8")
    assert told(tmp_path, f"x{KEYS['OPENAI_API_KEY']}x") == ["b: HF_TOKEN", "log 0: OPENAI_API_KEY"]


def test_training_writes_no_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, fault_log: FaultLog
) -> None:
    turns = [{"from": "human", "value": "What is one plus two?"}, {"from": "gpt", "value": "three"}]
    rows = [{"id": number, "conversations": turns} for number in range(4)]
    (tmp_path / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = [
        "--model_name_or_path",
        str(BASE),
        "--data_path",
        str(tmp_path / "train.json"),
        "--max_steps",
        "2",
    ]
    flags += [
        "--save_steps",
        "1",
        "--save_strategy",
        "steps",
        "--lora_enable",
        "True",
        "--logging_steps",
        "1",
    ]
    with caplog.at_level(logging.DEBUG):
        recipe.run([*flags, "--output_dir", str(tmp_path / "out"), "--hub_token", KEYS["HF_TOKEN"]])
    flags = ["--run-dir", str(tmp_path / "run"), "--name", "lora", "--method", "lora", "--checkpoint"]
    run_record.main([*flags, str(tmp_path / "out"), "--base", str(BASE)])
    printed = capfd.readouterr()
    assert (tmp_path / "out" / "checkpoint-1").is_dir()
    assert told(tmp_path, printed.out, printed.err, caplog.text) == []
    fault_log(
        "keys in the environment, and --hub_token, of a training",
        "in no file, no log",
        SURVIVED,
        len(KEYS) + 1,
    )


def gossip(request: dict, before: int) -> Reply:
    """A server that answers with the key that it got, and first refuses with it."""
    key = KEYS["OPENAI_API_KEY"]
    if before == 0 and "first" in question_of(request):
        return Reply(503, f"busy with {key}".encode(), {"Retry-After": "0"})
    return completion(f"Your key is {key}, Bearer {key}")


def test_answering_by_a_server_writes_no_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, fault_log: FaultLog
) -> None:
    """Even where the server sends it back."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    rows = [
        {"question_id": number, "image": "a.png", "text": f"{word}?"}
        for number, word in enumerate(("first", "b"))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    flags = ["--question-file", str(tmp_path / "questions.jsonl"), "--image-folder", str(tmp_path / "images")]
    flags += ["--answers-file", str(tmp_path / "answers.jsonl")]
    with serving(ChatServer(gossip)) as chat, caplog.at_level(logging.DEBUG):
        model_vqa_loader.main([*flags, "--endpoint", chat.url])
    printed = capfd.readouterr()
    assert chat.keys == [f"Bearer {KEYS['OPENAI_API_KEY']}"] * 3, "the server itself gets it"
    assert "Your key is [key]" in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    assert "503" in caplog.text
    assert told(tmp_path, printed.out, printed.err, caplog.text) == []
    fault_log("a server that sends the key back", "in no file, no log", SURVIVED, 2)


def test_a_refusal_that_quotes_the_key_does_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question_id": 1, "text": "Who?"}\n', encoding="utf-8")
    reply = Reply(401, f"wrong key {KEYS['OPENAI_API_KEY']} \x1b[2J".encode())
    flags = [
        "--question-file",
        str(tmp_path / "questions.jsonl"),
        "--answers-file",
        str(tmp_path / "answers.jsonl"),
    ]
    with serving(ChatServer(lambda request, before: reply)) as chat, pytest.raises(SystemExit):
        model_vqa_loader.main([*flags, "--endpoint", chat.url])
    printed = capfd.readouterr()
    assert "wrong key [key]" in printed.err
    assert "\x1b" not in printed.err
    assert told(tmp_path, printed.out, printed.err) == []
