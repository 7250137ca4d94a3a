"""The answering programs' flags about weights and batches: what reaches the loader and the engine, and what a
run's file remembers.
"""

import json
from pathlib import Path

import pytest
import torch

from llava.errors import UsageError
from llava.eval import model_vqa_loader, run_llava
from llava.eval.answering import FILES, loading_of, open_engine
from tests.parity.golden import DATA

MODEL = str(DATA / "models" / "llava-v1.5-tiny")


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden configurations name their vision tower relative to this folder."""
    monkeypatch.chdir(DATA / "models")


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_the_weights_get_the_type_asked_for(name: str) -> None:
    options = model_vqa_loader.parser().parse(["--model-path", MODEL, "--dtype", name])
    engine, _ = open_engine(options, FILES)
    assert {weight.dtype for weight in engine.model.parameters()} == {getattr(torch, name)}
    assert engine.batch_size == "auto"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], {}),
        (["--dtype", "auto"], {}),
        (["--dtype", "bfloat16"], {"dtype": "bfloat16"}),
        (["--load-8bit"], {"load_8bit": True}),
        (["--load-4bit", "--dtype", "float16"], {"load_4bit": True, "dtype": "float16"}),
    ],
)
@pytest.mark.parametrize("program", [model_vqa_loader, run_llava])
def test_what_the_loader_is_told(
    program: object, given: list[str], wanted: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ["--model-path", MODEL]
    if program is run_llava:
        needed += ["--image-file", str(DATA / "images" / "solid_black_0.png"), "--query", "Which colour?"]
    options = program.parser().parse([*needed, *given])  # type: ignore[attr-defined]
    assert loading_of(options) == wanted
    told: list[dict] = []

    def load(path: str, base: str | None, **loading: object) -> None:
        told.append(loading)
        raise UsageError("far enough")

    monkeypatch.setattr("llava.model.builder.load_pretrained_model", load)
    with pytest.raises(UsageError, match="far enough"):
        run_llava.eval_model(options) if program is run_llava else open_engine(options, FILES)
    assert told == [wanted]


def test_answers_of_another_type_of_weights_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half precision is not always the same answer; a file that was begun without the flag goes on."""
    rows = [{"question_id": 1, "text": "Name one animal."}, {"question_id": 2, "text": "Name a color."}]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = ["--model-path", MODEL, "--question-file", str(file), "--answers-file", str(tmp_path / "a.jsonl")]
    model_vqa_loader.main([*given, "--max_new_tokens", "8"])
    side = json.loads((tmp_path / "a.jsonl.run.json").read_text(encoding="utf-8"))
    assert "dtype" not in side
    assert side["prompt"].endswith("USER: <image>\n{question} ASSISTANT:")
    with pytest.raises(SystemExit):
        model_vqa_loader.main([*given, "--max_new_tokens", "8", "--dtype", "bfloat16"])
    assert "another model or other settings" in capsys.readouterr().err
    model_vqa_loader.main([*given, "--max_new_tokens", "8", "--batch-size", "1"])
    assert "2 answers (2 were there)" in capsys.readouterr().err


def test_a_checkpoint_or_a_server_is_wanted() -> None:
    with pytest.raises(UsageError, match=r"required: --model-path \(or --endpoint, for a server\)"):
        model_vqa_loader.parser().parse([])
    assert model_vqa_loader.parser().parse(["--endpoint", "http://h:1/v1"]).model_path is None


@pytest.mark.parametrize(("given", "wanted"), [("auto", "auto"), ("7", 7)])
def test_batch_sizes(given: str, wanted: object) -> None:
    options = model_vqa_loader.parser().parse(["--model-path", "m", "--batch-size", given])
    assert options.batch_size == wanted
