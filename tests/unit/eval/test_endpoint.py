"""One question to a server: what passes is tried again, what does not is told, and the key stays secret."""

import email.utils
import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from llava.errors import UsageError
from llava.eval.endpoint import KEY_NAME, Endpoint, Patience, check_url, seconds_asked
from tests.unit.eval.chat_server import ChatServer, Reply, completion, serving

REQUEST = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}]}
HASTY = Patience(timeout=0.3, tries=4, first_pause=0.01, longest_pause=0.02)
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between the test and its server, and no key of the machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_NAME, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server that answers `Anna`, until a test tells it otherwise."""
    with serving(ChatServer(reply=lambda request, before: completion("Anna"))) as chat:
        yield chat


def failing_first(server: ChatServer, *replies: Reply) -> None:
    """The replies one after the other, then the right one."""
    server.reply = lambda request, before: replies[before] if before < len(replies) else completion("Anna")


def test_a_question_is_answered(server: ChatServer) -> None:
    assert Endpoint(server.url + "/").ask(REQUEST) == "Anna"
    assert (server.requests, server.paths, server.keys) == ([REQUEST], ["/v1/chat/completions"], [None])
    server.reply = lambda request, before: completion("")
    assert Endpoint(server.url).ask(REQUEST) == "", "an empty answer is an answer"


PASSING = {
    "busy": Reply(429, b'{"error": "slow down"}'),
    "broken": Reply(500, b"oops"),
    "starting": Reply(503, b"loading model"),
    "gateway": Reply(504),
    "timeout": Reply(408),
    "dropped": Reply(body=None),
    "cut off": Reply(200, b"{", {"Content-Length": "900"}),
    "slow": Reply(late=0.6),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(kind: str, server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    failing_first(server, PASSING[kind], PASSING[kind])
    with caplog.at_level(logging.WARNING):
        assert Endpoint(server.url, HASTY).ask(REQUEST) == "Anna"
    assert server.requests == [REQUEST] * 3
    assert caplog.text.count("trying again in 0.") == 2


@pytest.mark.parametrize("kind", ["busy", "dropped", "slow"])
def test_what_does_not_pass_ends_with_the_last_reason(kind: str, server: ChatServer) -> None:
    failing_first(server, *[PASSING[kind]] * 9)
    wanted = {"busy": "status 429 .*slow down", "dropped": "no answer", "slow": "no answer .*timed out"}
    with pytest.raises(UsageError, match=rf"failed 4 times, at last: {wanted[kind]}.*goes on from"):
        Endpoint(server.url, HASTY).ask(REQUEST)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(400, b'{"error": {"message": "context of 2048 exceeded"}}'), "400 .*context of 2048 exceeded"),
        (Reply(401, b"{}"), f"401 .*set {KEY_NAME}"),
        (Reply(403, b"{}"), f"403 .*set {KEY_NAME}"),
        (Reply(404, b"not here"), "404 .*not here.*ends in /v1.*--endpoint-model"),
        (Reply(413), r"413 \(nothing\); the picture is too large"),
        (Reply(307, b"", {"Location": "http://127.0.0.1:9/v1"}), "307 .*redirects.*name the final address"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:9/v1"}), "302 .*redirects"),
        (Reply(body=b"<html>login</html>"), "<html>login</html>.*is no JSON.*with /v1"),
        (Reply(body=b"\xff\xfe"), "is no JSON"),
        (Reply(body=b""), "gave nothing, which is no JSON"),
        (Reply(body=b"[1, 2]"), "is no chat completion"),
        (Reply(body=b'{"choices": []}'), "choices.*is no chat completion"),
        (Reply(body=b'{"choices": [{"message": null}]}'), "is no chat completion"),
        (completion(None), "gave null as the answer's content.*reasoning parser"),
        (completion(["a"]), "gave an array as the answer's content"),
    ],
)
def test_what_does_not_pass_is_told_at_once(reply: Reply, message: str, server: ChatServer) -> None:
    failing_first(server, reply)
    with pytest.raises(UsageError, match=message):
        Endpoint(server.url, HASTY).ask(REQUEST)
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["0.4", "date"])
def test_the_server_says_how_long_to_wait(header: str, server: ChatServer) -> None:
    if header == "date":
        header = email.utils.formatdate(time.time() + 2, usegmt=True)  # whole seconds: at least one remains
    failing_first(server, Reply(429, b"", {"Retry-After": header}))
    started = time.monotonic()
    assert Endpoint(server.url, HASTY).ask(REQUEST) == "Anna"
    assert time.monotonic() - started >= 0.39, "our own pause is 0.01"


def test_pauses_double_and_what_is_asked_is_bounded() -> None:
    patience = Patience(first_pause=1, longest_pause=60, longest_asked=600)
    for failures, wanted in ((1, 1), (2, 2), (5, 16), (30, 60)):
        assert 0.75 * wanted <= patience.pause(failures, None) <= 1.25 * wanted
    assert patience.pause(1, 7.0) == 7.0
    assert patience.pause(1, 1e9) == 600
    assert patience.pause(1, -5.0) == 0.0
    assert (seconds_asked(None), seconds_asked("soon"), seconds_asked("nan")) == (None, None, None)
    assert seconds_asked("12") == 12.0
    assert seconds_asked("Fri, 31 Dec 1999 23:59:59 GMT") < 0  # type: ignore[operator]


def test_nobody_there_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        started = time.monotonic()
        with pytest.raises(UsageError, match=r"cannot be reached: .*refused.*start the server"):
            Endpoint(url, Patience(first_pause=30)).ask(REQUEST)
    assert time.monotonic() - started < 20


def test_a_server_that_was_there_is_waited_for() -> None:
    with serving(ChatServer(reply=lambda request, before: completion("Anna"))) as chat:
        endpoint = Endpoint(chat.url, HASTY)
        endpoint.ask(REQUEST)
    with pytest.raises(UsageError, match=r"failed 4 times, at last: no answer .*refused"):
        endpoint.ask(REQUEST)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, f'{{"error": "Incorrect API key: {KEY}"}}'.encode()),
        Reply(500, f"panic: Bearer {KEY}".encode()),
        Reply(body=f"<p>{KEY}</p>".encode()),
        Reply(body=json.dumps({"key": KEY}).encode()),
    ],
)
def test_the_key_goes_to_the_server_and_nowhere_else(
    reply: Reply, server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    endpoint = Endpoint(server.url, HASTY)
    assert KEY not in repr(endpoint)
    failing_first(server, *[reply] * 9)
    with caplog.at_level(logging.DEBUG), pytest.raises(UsageError) as caught:
        endpoint.ask(REQUEST)
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert "[key]" in str(caught.value), "the server sent it back"
    assert KEY not in str(caught.value) + caplog.text


def test_a_key_that_is_none_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_NAME, KEY + "\n")
    with pytest.raises(UsageError, match=f"{KEY_NAME} holds characters") as caught:
        Endpoint("http://127.0.0.1:1/v1")
    assert KEY not in str(caught.value)


def test_the_only_model_has_a_name(server: ChatServer) -> None:
    assert Endpoint(server.url).only_model() == "tiny"
    server.models = ("small", "large")
    with pytest.raises(UsageError, match="lists the models: small, large; name one with --endpoint-model"):
        Endpoint(server.url).only_model()
    server.models = ()
    with pytest.raises(UsageError, match="lists the models: none"):
        Endpoint(server.url).only_model()


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000/v1", "localhost", "ftp://h/v1", "http://", "http://h:port/v1", "http://h/v1?key=1",
     "http://h/v 1", "http://h:99999/v1"],
)  # fmt: skip
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"--endpoint is '.*'; write http://HOST:PORT/v1"):
        check_url(url)


def test_an_address_holds_no_password() -> None:
    with pytest.raises(UsageError, match=f"leave them out and set {KEY_NAME}") as caught:
        check_url("http://me:hidden@h/v1")
    assert "hidden" not in str(caught.value)
