"""Reviews by a judge model: prompts, pairing, retries, gaps, and a rerun that asks nothing twice."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava.eval import eval_gpt_review, eval_gpt_review_bench, eval_gpt_review_visual, summarize_gpt_review
from llava.eval.judge_flags import URL_NAME
from llava.eval.judgements import SUFFIX
from tests.unit.eval.chat_server import ChatServer, Reply
from tests.unit.eval.judging import KEY, judge_server, judgement, prompt_of
from tests.unit.eval.metrics.conftest import Failing, orders, refusal, write_lines

__all__ = ["refusal"]
QUESTIONS = [
    {
        "question_id": k,
        "image": f"{k % 2}.jpg",
        "text": f"Question {k}?",
        "category": ("conv", "complex")[k % 2],
    }
    for k in range(6)
]
REFERENCE = [{"question_id": k, "text": f"reference {k}", "answer_id": f"r{k}"} for k in range(6)]
MINE = [{"question_id": k, "text": f"mine {k}"} for k in range(6)]
CONTEXTS = [{"image": "0.jpg", "caption": "A cat."}, {"image": "1.jpg", "caption": ["A dog.", "It barks."]}]
RULES = {
    f"llava_bench_{name}": {"role": "Assistant", "prompt": f"Judge {name}."} for name in ("conv", "complex")
}


def score(prompt: str) -> str:
    """8 for the reference, 3 and the number of the question for the other."""
    number = int(prompt.partition("Question ")[2][0])
    return f"8 {3 + number}\nbecause of that"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """The judge."""
    yield from judge_server(monkeypatch, score)


def files(
    folder: Path, questions: list[dict] = QUESTIONS, first: list[dict] = REFERENCE, second: list[dict] = MINE,
    contexts: list[dict] = CONTEXTS,
) -> list[str]:  # fmt: skip
    """The flags that name all files."""
    (folder / "rule.json").write_text(json.dumps(RULES), encoding="utf-8")
    paths = {
        "--question": write_lines(questions, folder / "questions.jsonl"),
        "--context": write_lines(contexts, folder / "context.jsonl"),
        "--rule": folder / "rule.json",
        "--output": folder / "reviews" / "mine.jsonl",
    }
    answers = [write_lines(first, folder / "gpt4.jsonl"), write_lines(second, folder / "mine.jsonl")]
    flags = [str(part) for flag in paths.items() for part in flag]
    return [*flags, "--answer-list", *map(str, answers)]


def reviews(folder: Path) -> list[dict]:
    """The lines of the output."""
    text = (folder / "reviews" / "mine.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_reviews_have_the_originals_form(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    eval_gpt_review_bench.main([*files(tmp_path), "--price", "30", "60"])
    rows = reviews(tmp_path)
    assert rows[1] | {"sha256": ""} == {
        "id": 2, "question_id": 1, "answer1_id": "r1", "answer2_id": "1", "category": "llava_bench_complex",
        "content": "8 4\nbecause of that", "tuple": [8.0, 4.0], "judge": "gpt-4-0613", "sha256": "",
    }  # fmt: skip
    assert [row["question_id"] for row in rows] == list(range(6))
    wanted = (
        "[Context]\nA dog.\nIt barks.\n\n[Question]\nQuestion 1?\n\n[Assistant 1]\nreference 1\n\n"
        "[End of Assistant 1]\n\n[Assistant 2]\nmine 1\n\n[End of Assistant 2]\n\n"
        "[System]\nJudge complex.\n\n"
    )
    (request,) = [one for one in server.requests if "Question 1?" in prompt_of(one)]
    assert prompt_of(request) == wanted
    assert (request["temperature"], request["max_tokens"], request["model"]) == (0.2, 1024, "gpt-4-0613")
    captured = capsys.readouterr()
    assert captured.out == (
        "Judge gpt-4-0613: 6 judgements asked, 0 kept from before; 600 prompt and 60 completion tokens, cost "
        "0.0216 at 30 and 60 per million\n"
    )
    assert "6 of 6 reviews have scores" in captured.err
    summarize_gpt_review.main(["-f", str(tmp_path / "reviews" / "mine.jsonl")])
    assert "all 68.8 80.0 55.0" in capsys.readouterr().out


def test_no_order_of_lines_matters_and_nothing_is_asked_twice(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    eval_gpt_review_bench.main(files(tmp_path))
    wanted = reviews(tmp_path)
    monkeypatch.delenv(URL_NAME)
    monkeypatch.delenv("OPENAI_API_KEY")
    capsys.readouterr()
    for first, second in zip(orders(REFERENCE), reversed(list(orders(MINE))), strict=True):
        eval_gpt_review_bench.main(files(tmp_path, first=first, second=second))
        assert reviews(tmp_path) == wanted
        assert "0 judgements asked, 6 kept from before" in capsys.readouterr().out
    assert len(server.requests) == 6


def test_another_prompt_or_judge_is_asked_anew(tmp_path: Path, server: ChatServer) -> None:
    eval_gpt_review_bench.main(files(tmp_path))
    changed = [row if row["question_id"] != 2 else row | {"text": "better"} for row in MINE]
    eval_gpt_review_bench.main(files(tmp_path, second=changed))
    assert len(server.requests) == 7
    eval_gpt_review_bench.main([*files(tmp_path), "--judge-model", "other"])
    assert len(server.requests) == 13
    assert {row["judge"] for row in reviews(tmp_path)} == {"other"}


PASSING = {
    "busy": Reply(429, b'{"error": "slow down"}'),
    "broken": Reply(500, b"oops"),
    "dropped": Reply(body=None),
    "slow": Reply(late=1.0),
    "garbage": Reply(body=b"<html>gateway</html>"),
    "no completion": Reply(body=b'{"error": "overloaded"}'),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(kind: str, tmp_path: Path, server: ChatServer) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        PASSING[kind] if before < 2 and "Question 3?" in prompt_of(request) else good(request, before)
    )
    eval_gpt_review_bench.main([*files(tmp_path), "--concurrency", "1"])
    assert len(server.requests) == 8
    assert all("error" not in row for row in reviews(tmp_path))


def test_garbage_from_the_start_is_a_wrong_address(
    tmp_path: Path, server: ChatServer, refusal: Failing
) -> None:
    server.reply = lambda request, before: PASSING["garbage"]
    told = refusal(eval_gpt_review_bench.main, *files(tmp_path), "--concurrency", 1)
    assert "which is no JSON" in told
    assert not (tmp_path / "reviews" / "mine.jsonl").exists()


def test_a_run_that_dies_goes_on(tmp_path: Path, server: ChatServer, refusal: Failing) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        Reply(429) if "Question 4?" in prompt_of(request) else good(request, before)
    )
    told = refusal(eval_gpt_review_bench.main, *files(tmp_path), "--concurrency", "1")
    assert "failed 4 times, at last: status 429" in told
    assert len(server.requests) == 8, "four questions, and the fifth four times"
    server.reply = good
    kept = tmp_path / "reviews" / f"mine.jsonl{SUFFIX}"
    kept.write_bytes(kept.read_bytes() + b'{"sha256": "torn')
    eval_gpt_review_bench.main(files(tmp_path))
    assert len(server.requests) == 10, "only the two that are left"
    assert [row["tuple"][1] for row in reviews(tmp_path)] == [3, 4, 5, 6, 7, 8]


def test_unreadable_judgements_count_in_no_mean_and_are_asked_again(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        judgement("I would rather not.", None)
        if "Question 0?" in prompt_of(request)
        else good(request, before)
    )
    eval_gpt_review_bench.main(files(tmp_path))
    captured = capsys.readouterr()
    assert "500 prompt and 50 completion tokens as far as the server tells" in captured.out
    assert "1 review has no readable scores, first 0; they count in no mean" in captured.err
    assert reviews(tmp_path)[0]["tuple"] == [-1, -1]
    summarize_gpt_review.main(["-f", str(tmp_path / "reviews" / "mine.jsonl")])
    assert "1 review has no scores, first 0" in caplog.text
    server.reply = good
    eval_gpt_review_bench.main(files(tmp_path))
    assert len(server.requests) == 7
    assert reviews(tmp_path)[0]["tuple"] == [8, 3]


def test_what_cannot_be_judged_is_a_gap_that_is_told(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        Reply(400, b"content policy") if "Question 1?" in prompt_of(request) else good(request, before)
    )
    failed = MINE[2] | {"text": "", "metadata": {"error": "no picture"}}
    with pytest.raises(SystemExit) as stop:
        eval_gpt_review_bench.main(files(tmp_path, second=[MINE[0], MINE[1], failed, *MINE[3:5]]))
    assert stop.value.code == 3
    assert "3 questions were not judged, first 1, 2, 5" in capsys.readouterr().err
    rows = reviews(tmp_path)
    assert "content policy" in rows[1]["error"]
    assert rows[2]["error"] == rows[5]["error"] == "answer 2 is missing"
    assert [row["tuple"][1] for row in rows] == [3, -1, -1, 6, 7, -1]


def test_the_key_stands_nowhere(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    good = server.reply
    server.reply = lambda request, before: (
        Reply(500, f"panic: Bearer {KEY}".encode()) if before < 1 else good(request, before)
    )
    with caplog.at_level(logging.DEBUG):
        eval_gpt_review_bench.main(files(tmp_path))
    assert set(server.keys) == {f"Bearer {KEY}"}
    captured = capsys.readouterr()
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in captured.out + captured.err + caplog.text + written


def test_the_program_without_pictures_falls_back_to_the_default_rule(
    tmp_path: Path, server: ChatServer
) -> None:
    given = files(tmp_path)
    place = given.index("--context")
    given = given[:place] + given[place + 2 :]
    rules = {
        "default": {"role": "Helper", "prompt": "Judge."},
        "conv": {"role": "Talker", "prompt": "Judge it."},
    }
    (tmp_path / "rule.json").write_text(json.dumps(rules), encoding="utf-8")
    eval_gpt_review.main(given)
    prompts = sorted(prompt_of(request) for request in server.requests)
    assert prompts[0].startswith("[Question]\nQuestion 0?\n\n[Talker 1]\nreference 0\n\n[End of Talker 1]")
    assert prompts[1].endswith("[End of Helper 2]\n\n[System]\nJudge.\n\n")
    assert reviews(tmp_path)[1]["category"] == "complex"


def test_boxes_are_part_of_what_a_picture_shows(tmp_path: Path, server: ChatServer) -> None:
    boxes = [{"category": "cat", "bbox": [1, 2.5, 3, 4]}]
    contexts = [{"image": f"{k}.jpg", "captions": ["One.", "Two."], "instances": boxes} for k in range(2)]
    given = files(tmp_path, contexts=contexts)
    rules = {name.removeprefix("llava_bench_"): rule for name, rule in RULES.items()}
    (tmp_path / "rule.json").write_text(json.dumps(rules), encoding="utf-8")
    eval_gpt_review_visual.main(given)
    assert all(
        "[Context]\nOne.\nTwo.\n\ncat: [1, 2.5, 3, 4]\n\n[Q" in prompt_of(one) for one in server.requests
    )


def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, server: ChatServer, refusal: Failing
) -> None:
    def told(**changes: list[dict]) -> str:
        return refusal(eval_gpt_review_bench.main, *files(tmp_path, **changes))

    assert "1 answer belongs to no question, first 9" in told(second=[*MINE, {"question_id": 9, "text": "x"}])
    assert "answered more than once, first 0" in told(first=[*REFERENCE, REFERENCE[0]])
    assert "1 id stands twice, first 0" in told(questions=[*QUESTIONS, QUESTIONS[0]])
    assert "1 picture has no context, first 1.jpg" in told(contexts=CONTEXTS[:1])
    assert "1 picture stands twice, first 0.jpg" in told(contexts=[*CONTEXTS, CONTEXTS[0]])
    assert "line 1: caption: found 3" in told(contexts=[CONTEXTS[0] | {"caption": 3}, CONTEXTS[1]])
    assert "no rule for llava_bench_detail" in told(
        questions=[QUESTIONS[0] | {"category": "detail"}, *QUESTIONS[1:]]
    )
    assert "image: is missing" in told(questions=[{"question_id": 0, "text": "?", "category": "conv"}])
    empty = files(tmp_path)
    (tmp_path / "mine.jsonl").write_text("", encoding="utf-8")
    assert "mine.jsonl is empty" in refusal(eval_gpt_review_bench.main, *empty)
    assert not server.requests


def test_flags_that_are_missing_are_told(
    tmp_path: Path, refusal: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv(URL_NAME, raising=False)
    given = files(tmp_path)
    main = eval_gpt_review_bench.main
    assert "there is no judge to ask: set OPENAI_API_KEY" in refusal(main, *given)
    assert "--base-url is 'nowhere'; write http" in refusal(main, *given, "--base-url", "nowhere")
    assert "--answer-list names 1 files; two were wanted" in refusal(main, *given[:-1])
    assert "--context is missing" in refusal(main, *given[:2], *given[4:])
    for flags, part in (
        (("--concurrency", 0), "--concurrency is 0"),
        (("--judge-temperature", -1), "--judge-temperature is -1.0"),
        (("--timeout", 0), "--timeout is 0.0"),
        (("--price", 1, -1), "--price wants two numbers"),
    ):
        assert part in refusal(main, *given, *flags)


def test_reviews_of_another_program_are_not_overwritten(tmp_path: Path, refusal: Failing) -> None:
    given = files(tmp_path)
    paid = write_lines([{"question_id": 0, "tuple": [8, 9]}], tmp_path / "reviews" / "mine.jsonl")
    assert f"exists, but not mine.jsonl{SUFFIX}" in refusal(eval_gpt_review_bench.main, *given)
    assert "8, 9" in paid.read_text(encoding="utf-8")


def test_a_damaged_cache_is_told(tmp_path: Path, server: ChatServer, refusal: Failing) -> None:
    given = files(tmp_path)
    write_lines([{"sha256": "x", "content": 3}], tmp_path / "reviews" / f"mine.jsonl{SUFFIX}")
    assert "line 1 is no judgement; remove the file" in refusal(eval_gpt_review_bench.main, *given)
    assert not server.requests


def test_the_rules_that_come_along_cover_all_programs() -> None:
    path = Path(eval_gpt_review.__file__).with_name("table") / "rule.json"
    rules = json.loads(path.read_text(encoding="utf-8"))
    kinds = ("conv", "detail", "complex")
    assert {"default", *kinds, *(f"llava_bench_{kind}" for kind in kinds)} <= rules.keys()
    for rule in rules.values():
        assert f"{rule['role']} 1" in rule["prompt"]
        assert f"{rule['role']} 2" in rule["prompt"]
