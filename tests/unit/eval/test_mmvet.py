"""MM-Vet: marks by a judge, means per capability, gaps that are told, and a rerun that asks nothing twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava.eval import eval_mmvet
from llava.eval.metrics.judged import parse_mark
from tests.unit.eval.chat_server import ChatServer, Reply
from tests.unit.eval.judging import judge_server, judgement, prompt_of
from tests.unit.eval.metrics.conftest import Failing, refusal

__all__ = ["refusal"]
TRUTH = {
    f"v1_{k}": {"imagename": f"v1_{k}.png", "question": f"Question {k}?", "answer": "x<AND>y<OR>z",
                "imagesource": "here", "capability": ["ocr", "math"] if k % 2 else ["rec"]}
    for k in range(4)
}  # fmt: skip
ANSWERS = {name: f"said {name}" for name in TRUTH}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A judge that gives 0.0, 0.3, 0.6, 0.9."""
    yield from judge_server(monkeypatch, lambda prompt: f"0.{3 * int(prompt.rpartition('v1_')[2][0])}")


def files(folder: Path, answers: dict[str, object] | None = None, truth: dict = TRUTH) -> list[str]:
    """The flags."""
    (folder / "mm-vet.json").write_text(json.dumps(truth), encoding="utf-8")
    (folder / "mine.json").write_text(json.dumps(ANSWERS if answers is None else answers), encoding="utf-8")
    flags = {"--mm-vet-file": "mm-vet.json", "--result-file": "mine.json", "--output": "grades/mine.json"}
    return [part for flag, name in flags.items() for part in (flag, str(folder / name))]


@pytest.mark.parametrize(
    ("text", "mark"),
    [("0.5", 0.5), (" 1.0\n", 1.0), ("1", 1.0), (".4", 0.4), ("**0.7**", 0.7), ("Correctness: 0.3", 0.3),
     ("Score is 0.3.", 0.3), ("0.5 | because", 0.5), ("It is close.\n0.8", 0.8), ("| 0.2 |", 0.2),
     ("1.5", None), ("7", None), ("1/2", None), ("50%", None), ("1 out of 10", None), ("", None),
     ("no idea", None), ("0.5.1", None), ("-1", None), ("10", None)],
)  # fmt: skip
def test_a_mark_is_read(text: str, mark: float | None) -> None:
    assert parse_mark(text) == mark


def test_means_are_told_with_their_evidence(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*files(tmp_path), "--results-dir", str(tmp_path / "out")]
    eval_mmvet.main(given)
    text = capsys.readouterr().out
    assert text.startswith(
        "Judge gpt-4-0613: 4 judgements asked, 0 kept from before; 400 prompt and 40 completion tokens\n"
        "total: 45.00% (n=4)\ncapability: math: 60.00% (n=2)\ncapability: ocr: 60.00% (n=2)\n"
        "capability: rec: 30.00% (n=2)\ncombination: math_ocr: 60.00% (n=2)\ncombination: rec: 30.00% (n=2)\n"
        "Evidence: n=4, 45.0 % (95 % interval"
    )
    assert all("Question " in prompt_of(one) for one in server.requests)
    (last,) = {prompt_of(one).splitlines()[-1] for one in server.requests if "v1_2" in prompt_of(one)}
    assert last == "Question 2? | x <AND> y <OR> z | said v1_2 | "
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (results["benchmark"], results["headline"]) == ("mmvet", "total")
    assert results["extra"]["judge"] == "gpt-4-0613"
    grades = json.loads((tmp_path / "grades" / "mine.json").read_text(encoding="utf-8"))
    assert grades["v1_3"] == {"model": ["gpt-4-0613"], "content": ["0.9"], "score": [0.9]}
    shuffled = dict(reversed(ANSWERS.items()))
    eval_mmvet.main([*files(tmp_path, shuffled), "--results-dir", str(tmp_path / "out")])
    again = capsys.readouterr().out
    assert "0 judgements asked, 4 kept" in again
    assert again.partition("\n")[2] == text.partition("\n")[2]


def test_the_benchmarks_prompt_may_be_given(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "prompt.txt").write_text(
        "Official.\nQ | T | P | C\n--- | --- | --- | ---\n", encoding="utf-8"
    )
    eval_mmvet.main([*files(tmp_path), "--prompt", str(tmp_path / "prompt.txt")])
    wanted = "Official.\nQ | T | P | C\n--- | --- | --- | ---\nQuestion 0? | x <AND> y <OR> z | said v1_0 | "
    assert wanted in {prompt_of(one) for one in server.requests}


def test_missing_answers_earn_nothing_and_unreadable_marks_count_nowhere(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        judgement("well") if "v1_1" in prompt_of(request) else good(request, before)
    )
    answers = {name: text for name, text in ANSWERS.items() if name != "v1_3"}
    eval_mmvet.main([*files(tmp_path, answers), "--results-dir", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert "total: 20.00% (n=3)" in captured.out
    assert "Coverage: 75.00% (3 of 4 answers have a mark)" in captured.out
    assert "0.0 % unparsable, 1 missing" in captured.out
    assert "1 answer has no mark, first v1_1" in captured.err
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["extra"]["without_mark"] == ["v1_1"]


def test_an_answer_that_the_judge_refuses_is_a_gap(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        Reply(400, b"policy") if "v1_2" in prompt_of(request) else good(request, before)
    )
    with pytest.raises(SystemExit) as stop:
        eval_mmvet.main(files(tmp_path))
    assert stop.value.code == 3
    captured = capsys.readouterr()
    assert "total: 40.00% (n=3)" in captured.out
    assert "policy" in captured.err


def test_broken_files_are_told(tmp_path: Path, server: ChatServer, refusal: Failing) -> None:
    main = eval_mmvet.main
    broken = {
        "a": 3,
        "b": {"question": "?", "answer": 4, "capability": ["rec"]},
        "c": {"question": "?", "answer": ""},
    }
    told = refusal(main, *files(tmp_path, truth=broken))
    for part in ("a: found a number", "b, answer: found a number", "c, capability: found null"):
        assert part in told
    assert "holds no questions" in refusal(main, *files(tmp_path, truth={}))
    assert "v1_0: found a number" in refusal(main, *files(tmp_path, {"v1_0": 4}))
    assert "1 answer belongs to no question, first 0" in refusal(main, *files(tmp_path, {"0": "x"}))
    server.reply = lambda request, before: judgement("well")
    assert "none of 4 answers has a readable mark" in refusal(main, *files(tmp_path))
