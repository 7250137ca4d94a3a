"""Many questions to a server: by picture, many at a time, the same file, order, resume and errors as with a
model.
"""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import UsageError
from llava.eval import model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_science
from llava.eval.endpoint import KEY_NAME, Endpoint, Patience
from llava.eval.endpoint_engine import Asking, EndpointEngine, data_url, order_by_picture
from llava.eval.outcomes import Failure
from llava.eval.questions import Question
from llava.images import load_image
from tests.unit.eval.chat_server import (
    ChatServer,
    Reply,
    answer_of,
    completion,
    picture_of,
    question_of,
    serving,
)

COLOURS = {"red.png": (255, 0, 0), "green.png": (0, 128, 0), "blue.png": (0, 0, 255)}
HASTY = Patience(timeout=5, tries=6, first_pause=0.01, longest_pause=0.02)


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between the test and its server, no key of the machine, no model."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_NAME, raising=False)
    monkeypatch.setattr("llava.model.builder.load_pretrained_model", None)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server whose answers hold the question and the picture's colour."""
    with serving(ChatServer()) as chat:
        yield chat


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of one colour each."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (5, 3), colour).save(folder / name)
    return folder


def questions(pictures: Path, count: int = 30) -> list[Question]:
    """Questions about the pictures and about none, in turns."""
    names = [*COLOURS, None]
    rows = [(number, names[number % 4]) for number in range(count)]
    return [
        Question(number, f"text {number}", name, None if name is None else str(pictures / name), None)
        for number, name in rows
    ]


def wanted(asked: list[Question]) -> list[str]:
    """The answers to them."""
    return [f"{one.text} {None if one.image is None else COLOURS[one.image]}" for one in asked]


def engine(server: ChatServer, concurrency: int = 4) -> EndpointEngine:
    """The engine under test."""
    return EndpointEngine(Endpoint(server.url, HASTY), Asking("tiny"), load_image, concurrency)


def test_all_are_answered_many_at_a_time(server: ChatServer, pictures: Path) -> None:
    asked = questions(pictures)
    four = threading.Barrier(4, timeout=10)

    def reply(request: dict, before: int) -> Reply:
        if len(server.requests) <= 4:
            four.wait()  # fails unless four are asked at a time
        return completion(answer_of(request))

    server.reply = reply
    found = dict(engine(server).answer(asked))
    assert [found[index] for index in range(len(asked))] == wanted(asked)
    assert server.most_at_a_time == 4


def test_questions_about_a_picture_follow_each_other(server: ChatServer, pictures: Path) -> None:
    """So that a server which keeps prefixes reads it once."""
    list(engine(server, concurrency=1).answer(questions(pictures, 16)))
    colours = [picture_of(request) for request in server.requests]
    shown = [None if one is None else one.getpixel((0, 0)) for one in colours]
    assert sum(first != second for first, second in itertools.pairwise(shown)) == 3


def test_order_by_picture() -> None:
    asked = [Question(number, "t", name, name, None) for number, name in enumerate("abcabca")]
    assert order_by_picture(asked, window=100) == [0, 3, 6, 1, 4, 2, 5]
    assert order_by_picture(asked, window=4) == [0, 3, 1, 2, 4, 5, 6]


def test_a_server_with_troubles_gives_the_same_answers(server: ChatServer, pictures: Path) -> None:
    """Every question meets one trouble or several first."""
    asked = questions(pictures)
    troubles = [Reply(429, b"", {"Retry-After": "0"}), Reply(500), Reply(body=None), Reply(503)]

    def reply(request: dict, before: int) -> Reply:
        number = int(question_of(request).split()[1])
        return troubles[(number + before) % 4] if before <= number % 3 else completion(answer_of(request))

    server.reply = reply
    found = dict(engine(server).answer(asked))
    assert [found[index] for index in range(len(asked))] == wanted(asked)
    assert len(server.requests) == sum(2 + number % 3 for number in range(30))


def test_the_first_error_ends_it_and_nobody_waits_for_the_others(server: ChatServer, pictures: Path) -> None:
    """Others are pausing for an hour when one question is refused."""
    asked = questions(pictures, 8)

    def reply(request: dict, before: int) -> Reply:
        if question_of(request) == "text 7":
            return Reply(403, b"not for you")
        return Reply(429, b"", {"Retry-After": "3600"})

    server.reply = reply
    threads = threading.active_count()
    with pytest.raises(UsageError, match="not for you"):
        list(engine(server, concurrency=8).answer(asked))
    for thread in threading.enumerate():
        if thread.name.startswith("worker-"):
            thread.join(10)
            assert not thread.is_alive()
    assert threading.active_count() <= threads + 9  # of the server


def test_a_request_says_how_to_draw() -> None:
    one = Question(1, "Who?", None, None, None)
    assert Asking("m", max_new_tokens=7).request(one, None) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Who?"}],
        "temperature": 0.0,
        "max_tokens": 7,
    }
    drawn = Asking("m", 0.5, 0.9, 7, seed=3).request(one, "data:x")
    assert (drawn["temperature"], drawn["top_p"], drawn["max_tokens"], drawn["seed"]) == (0.5, 0.9, 7, 3)
    content = drawn["messages"][0]["content"]  # type: ignore[index]
    assert content == [
        {"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "text", "text": "Who?"},
    ]


def test_a_picture_arrives_as_it_was_opened(tmp_path: Path) -> None:
    noise = Image.effect_noise((31, 17), 90).convert("RGB")
    request = Asking("m").request(Question(1, "?", "a", "a", None), data_url(noise))
    arrived = picture_of(request)
    assert arrived is not None
    assert arrived.tobytes() == noise.tobytes()


def flags(server: ChatServer, tmp_path: Path, *rows: dict) -> list[str]:
    """The loader's arguments for these rows."""
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [
        "--endpoint", server.url, "--question-file", str(file), "--image-folder", str(tmp_path / "images"),
        "--answers-file", str(tmp_path / "answers.jsonl"),
    ]  # fmt: skip


def rows_of(tmp_path: Path) -> list[dict]:
    """The answers file."""
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


ROWS = [
    {"question_id": number, "image": name, "text": f"text {number}"}
    for number, name in enumerate([*COLOURS, *COLOURS, *COLOURS])
]


@pytest.mark.parametrize("program", [model_vqa_loader, model_vqa])
def test_the_file_is_that_of_a_model(
    program: object, server: ChatServer, pictures: Path, tmp_path: Path
) -> None:
    program.main([*flags(server, tmp_path, *ROWS), "--temperature", "0.5", "--top_p", "0.9"])  # type: ignore
    rows = rows_of(tmp_path)
    assert [row["question_id"] for row in rows] == list(range(9))
    assert [row["text"] for row in rows] == [f"{row['text']} {COLOURS[row['image']]}" for row in ROWS]
    assert list(rows[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert {row["model_id"] for row in rows} == {"tiny"}
    drawn = {(one["temperature"], one["top_p"], one["max_tokens"]) for one in server.requests}
    assert drawn == {(0.5, 0.9, program.parser().get_default("max_new_tokens"))}  # type: ignore[attr-defined]


def test_an_interrupted_file_is_taken_up(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    given = [*flags(server, tmp_path, *ROWS), "--concurrency", "1"]
    server.reply = lambda request, before: (
        Reply(403, b"full") if question_of(request) == "text 4" else completion(answer_of(request))
    )
    with pytest.raises(SystemExit):
        model_vqa_loader.main(given)
    kept = (tmp_path / "answers.jsonl").read_bytes()
    done = kept.count(b"\n")
    assert 0 < done < 9
    asked = len(server.requests)
    assert asked > done + 1, "answers that must wait for question 4 are kept as well"
    server.reply = lambda request, before: completion(answer_of(request))
    server.requests.clear()
    model_vqa_loader.main(given)
    assert (tmp_path / "answers.jsonl").read_bytes().startswith(kept)
    assert [row["text"] for row in rows_of(tmp_path)] == [
        f"{row['text']} {COLOURS[row['image']]}" for row in ROWS
    ]
    assert len(server.requests) == 9 - (asked - 1), "only question 4 is asked twice"


def test_files_of_another_model_are_not_mixed(
    server: ChatServer, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(server, tmp_path, *ROWS)
    model_vqa_loader.main(given)
    for other in (["--endpoint-model", "large"], ["--max_new_tokens", "3"]):
        with pytest.raises(SystemExit):
            model_vqa_loader.main([*given, *other])
        assert "another model or other settings" in capsys.readouterr().err


def test_scienceqa_and_mmbench_ask_servers_too(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    common = ["--endpoint", server.url, "--answers-file", str(tmp_path / "answers.jsonl")]
    turn = {"from": "human", "value": "<image>\nWhich?"}
    science = tmp_path / "science.json"
    science.write_text(json.dumps([{"id": "1", "image": "red.png", "conversations": [turn]}]))
    model_vqa_science.main([*common, "--question-file", str(science), "--image-folder", str(pictures)])
    assert rows_of(tmp_path)[0]["text"].endswith(f"Which? {COLOURS['red.png']}")
    (tmp_path / "answers.jsonl").unlink()
    url = data_url(load_image(pictures / "blue.png"))
    table = tmp_path / "mmbench.tsv"
    table.write_text(f"index\tquestion\thint\tA\tB\timage\n1\tWhich?\tnan\tx\ty\t{url.partition(',')[2]}\n")
    model_vqa_mmbench.main([*common, "--question-file", str(table), "--all-rounds"])
    assert [row["round_id"] for row in rows_of(tmp_path)] == [0, 1]
    assert all(row["text"].endswith(f" {COLOURS['blue.png']}") for row in rows_of(tmp_path))


def test_what_the_server_decides_is_noted(
    server: ChatServer, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(server, tmp_path, ROWS[0])
    model_vqa_loader.main([*given, "--model-path", "m", "--conv-mode", "v1", "--dtype", "float16"])
    told = capsys.readouterr().err
    for flag in ("--model-path", "--conv-mode", "--dtype"):
        assert f"note: {flag} does nothing with --endpoint" in told
    assert "--batch-size" not in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_beams", "3"], "--num_beams is not known to servers"),
        (["--concurrency", "0"], "--concurrency is 0; it must be at least 1"),
        (["--batch-size", "many"], "--batch-size: found 'many'; a whole number or auto was wanted"),
        (["--load-4bit", "--load-8bit"], "--load-4bit and --load-8bit exclude each other"),
        (["--dtype", "int8"], "--dtype"),
        (["--endpoint", "nowhere"], "--endpoint is 'nowhere'; write http://HOST:PORT/v1"),
    ],
)
def test_wrong_flags_are_told(
    more: list[str], message: str, server: ChatServer, pictures: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        model_vqa_loader.main([*flags(server, tmp_path, *ROWS), *more])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert server.requests == []
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_damaged_picture_is_told(
    server: ChatServer, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (pictures / "blue.png").read_bytes()
    (pictures / "blue.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit) as caught:
        model_vqa_loader.main(flags(server, tmp_path, *ROWS))
    assert caught.value.code == 3
    message = capsys.readouterr().err
    assert "3 of 9 questions (33.3%) could not be answered" in message
    assert re.search(r"2, 5, 8: the picture blue\.png \(\d+ bytes\) is damaged", message)
    rows = rows_of(tmp_path)
    assert [row["text"] == "" for row in rows] == [number % 3 == 2 for number in range(9)]
    assert all(bool(row["metadata"]) == (row["text"] == "") for row in rows)


@pytest.mark.parametrize(
    "refusal",
    [
        Reply(400, b"context exceeded"),
        Reply(413, b"too large"),
        Reply(500, b"crashed on it"),
        Reply(200, b'{"choices": [{"message": {"content": null}}]}'),
    ],
    ids=["400", "413", "500", "no text"],
)
def test_a_refused_question_does_not_stop_the_others(
    refusal: Reply, server: ChatServer, pictures: Path
) -> None:
    asked = questions(pictures, 12)
    server.reply = lambda request, before: (
        refusal if question_of(request) == "text 5" else completion(answer_of(request))
    )
    found = dict(engine(server).answer(asked))
    failure = found.pop(5)
    assert isinstance(failure, Failure)
    assert server.url in failure.reason
    assert found == {number: text for number, text in enumerate(wanted(asked)) if number != 5}


def test_a_server_that_breaks_down_ends_the_run(server: ChatServer, pictures: Path) -> None:
    """It would fail for every other question too."""
    server.reply = lambda request, before: Reply(503, b"overloaded")
    with pytest.raises(UsageError, match="failed 6 times, at last: status 503"):
        list(engine(server).answer(questions(pictures, 4)))
