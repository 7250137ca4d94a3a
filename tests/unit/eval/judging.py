"""A judge for the tests: a local server whose judgements follow from the prompt, and hasty retries."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from llava.eval import judge_flags
from llava.eval.endpoint import KEY_NAME, Patience
from tests.unit.eval.chat_server import ChatServer, Reply, serving

KEY = "sk-very-secret-0123456789"


@dataclass(frozen=True)
class Hasty(Patience):
    """Nobody waits long in a test."""

    timeout: float = 0.5
    tries: int = 4
    first_pause: float = 0.01
    longest_pause: float = 0.02


def prompt_of(request: dict) -> str:
    """What the judge was asked; the system's part comes first."""
    assert [one["role"] for one in request["messages"]] == ["system", "user"]
    return request["messages"][1]["content"]


def judgement(text: str, tokens: tuple[int, int] | None = (100, 10)) -> Reply:
    """A good reply, with a count of tokens."""
    row: dict[str, object] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    if tokens is not None:
        row["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Reply(body=json.dumps(row).encode())


def judge_server(monkeypatch: pytest.MonkeyPatch, say: Callable[[str], str]) -> Iterator[ChatServer]:
    """A server that says `say(prompt)`, known by the environment; a key is set, retries are hasty."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(KEY_NAME, KEY)
    monkeypatch.setattr(judge_flags, "Patience", Hasty)
    with serving(ChatServer(reply=lambda request, before: judgement(say(prompt_of(request))))) as chat:
        monkeypatch.setenv(judge_flags.URL_NAME, chat.url)
        yield chat
