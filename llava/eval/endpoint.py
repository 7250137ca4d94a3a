"""One question to a server that speaks OpenAI's chat-completions protocol (vLLM, SGLang, llama.cpp, ...).

What passes by itself (the server is busy, restarts, drops a connection) is tried again after a while; what
does not is one clear message. The key comes from OPENAI_API_KEY and stands in no message.
"""

import email.utils
import http.client
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llava.errors import UsageError
from llava.records import kind_of, shorten

logger = logging.getLogger(__name__)

KEY_NAME = "OPENAI_API_KEY"
OF_REQUEST = {400, 413, 422}
"""Statuses that other requests need not meet: too long, too large, a picture that the server cannot read."""
BUSY = {408, 409, 425, 429}
"""Statuses below 500 that pass by themselves."""
MAX_BYTES = 10_000_000
"""Most bytes of an answer that are read."""
SHOWN_CHARACTERS = 300

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """Seconds without a sign until a try is given up, how many tries, and the pauses between them.

    Pauses double from `first_pause` to `longest_pause`; one that the server asks for (Retry-After) counts
    before them, up to `longest_asked`.
    """

    timeout: float = 300.0
    tries: int = 8
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_asked: float = 600.0

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after so many failures; spread, so that not all come back at once."""
        own = min(self.first_pause * 2 ** (failures - 1), self.longest_pause) * random.uniform(0.75, 1.25)
        return own if asked is None else min(max(asked, 0.0), self.longest_asked)


class Refused(UsageError):
    """The server does not answer this one request; it may answer others."""


class Passing(Exception):
    """A failure that may pass by itself; `pause` is what the server asks for, in seconds.

    `of_request`: when it does not pass, the request is to blame rather than the server.
    """

    def __init__(self, message: str, pause: float | None = None, *, of_request: bool = False) -> None:
        super().__init__(message)
        self.pause = pause
        self.of_request = of_request


class Garbage(UsageError):
    """What came is no answer of such a server: of a wrong address or, once it has answered, of something in
    between, which may pass by itself.
    """

    pause: float | None = None
    of_request = False


@dataclass(frozen=True)
class Completion:
    """A text, and what it cost in tokens as far as the server counts them."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: a key must not be sent on to another address."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


@dataclass
class Endpoint:
    """A server's address up to and with `/v1`, and how patiently it is asked; for use by many threads.

    `flag` and `model_flag` are the flags that name it and its model, for messages.
    """

    url: str
    patience: Patience = field(default_factory=Patience)
    key: str | None = field(default_factory=lambda: os.environ.get(KEY_NAME) or None, repr=False)
    stopped: threading.Event = field(default_factory=threading.Event)
    flag: str = "--endpoint"
    model_flag: str = "--endpoint-model"
    reached: bool = False
    answered: bool = False

    def __post_init__(self) -> None:
        self.url = check_url(self.url, self.flag)
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise UsageError(f"{KEY_NAME} holds characters that no key has (a line break?); set it anew.")
        self._opener = urllib.request.build_opener(NoRedirects)

    def only_model(self) -> str:
        """The name of the one model that the server lists; `UsageError` when it lists none or several."""
        return self._request("/models", None, self._only_model)

    def ask(self, request: Mapping[str, object]) -> str:
        """The text that the server gives to a chat-completions request; errors as those of `complete`."""
        return self.complete(request).text

    def complete(self, request: Mapping[str, object]) -> Completion:
        """The text and its tokens.

        Raises `UsageError` when the server refuses the request, gives something else, or stays away;
        `Refused` when other requests may fare better.
        """
        return self._request("/chat/completions", json.dumps(request).encode(), self._completion)

    def _only_model(self, listed: object) -> str:
        data = listed.get("data") if isinstance(listed, dict) else None
        names = (
            [row["id"] for row in data if isinstance(row, dict) and "id" in row]
            if isinstance(data, list)
            else []
        )
        if len(names) != 1 or not isinstance(names[0], str):
            known = ", ".join(map(str, names)) or "none"
            raise UsageError(f"{self.url} lists the models: {known}; name one with {self.model_flag}.")
        return names[0]

    def _completion(self, answer: Any) -> Completion:
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise Garbage(
                f"{self.url} gave {self._shown(json.dumps(answer))}, which is no chat completion (choices[0]."
                "message.content is missing); is it the address of an OpenAI-compatible server, with /v1?"
            ) from None
        if not isinstance(text, str):
            raise Refused(
                f"{self.url} gave {kind_of(text)} as the answer's content; a text was wanted. Has the server "
                "tools or a reasoning parser switched on?"
            )
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair could not be written
        text = text if self.key is None else text.replace(self.key, "[key]")
        return Completion(text, *(tokens_of(answer, f"{kind}_tokens") for kind in ("prompt", "completion")))

    def _request(self, path: str, body: bytes | None, read: Callable[[object], Result]) -> Result:
        """What `read` makes of the JSON that comes; asked again while the failure may pass."""
        failures = 0
        while True:
            try:
                result = read(self._try(path, body))
                self.answered = True
                return result
            except (Passing, Garbage) as failure:
                if isinstance(failure, Garbage) and not self.answered:
                    raise
                failures += 1
                if failures >= self.patience.tries:
                    kind = Refused if failure.of_request else UsageError
                    last = str(failure).rstrip("?.")
                    raise kind(
                        f"{self.url}{path} failed {failures} times, at last: {last}. Look at the server's "
                        "log, or lower --concurrency; the same command goes on from the answers so far."
                    ) from None
                pause = self.patience.pause(failures, failure.pause)
                logger.warning("%s%s: %s; trying again in %.1f s.", self.url, path, failure, pause)
            if self.stopped.wait(pause):
                raise UsageError(f"{self.url}{path} is not asked any more: the run was stopped.")

    def _try(self, path: str, body: bytes | None) -> object:
        """One try."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=self.patience.timeout) as reply:
                content = reply.read(MAX_BYTES + 1)
                if reply.length and len(content) <= MAX_BYTES:  # a bounded read takes a cut body as it is
                    raise http.client.IncompleteRead(content, reply.length)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, path) from None
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            raise self._unreached(error) from None
        self.reached = True
        try:
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes")
            return json.loads(content)
        except (ValueError, RecursionError):
            found = self._shown(content.decode("utf-8", "replace"))
            raise Garbage(
                f"{self.url}{path} gave {found}, which is no JSON; is it the address of an OpenAI-compatible "
                "server, with /v1?"
            ) from None

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> Exception:
        """What a status other than 200 means."""
        self.reached = True
        try:
            said = error.read(MAX_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        found = f"status {error.code} ({self._shown(said)})"
        if error.code in BUSY or error.code >= 500:
            asked = seconds_asked(error.headers.get("Retry-After"))
            return Passing(found, asked, of_request=error.code == 500)
        remedies = {
            401: f"set {KEY_NAME} to the server's key",
            403: f"set {KEY_NAME} to a key that may do this",
            404: f"check {self.flag} (it ends in /v1) and {self.model_flag}",
            413: "the picture is too large for the server; make it smaller or raise the server's limit",
        }
        remedy = remedies.get(error.code, "change what the server names")
        if 300 <= error.code < 400:
            remedy = "it redirects, which is not followed; name the final address"
        kind = Refused if error.code in OF_REQUEST else UsageError
        return kind(f"{self.url}{path} refused the request: {found}; {remedy}.")

    def _unreached(self, error: Exception) -> Exception:
        """What a connection that failed means; before the first success a wrong address is likelier."""
        reason = getattr(error, "reason", error)
        found = self._shown(str(reason) or type(reason).__name__)
        if not self.reached and never_answers(reason):
            return UsageError(
                f"{self.url} cannot be reached: {found}; start the server, or check {self.flag}."
            )
        return Passing(f"no answer ({found})")

    def _shown(self, text: str) -> str:
        """The start of a text, quoted, without the key."""
        if self.key:
            text = text.replace(self.key, "[key]")
        return shorten(text, SHOWN_CHARACTERS) if text.strip() else "nothing"


def never_answers(reason: object) -> bool:
    """Whether nobody listens there or the name is unknown or the certificate is wrong."""
    return isinstance(reason, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError)


def tokens_of(answer: Mapping[str, object], kind: str) -> int | None:
    """How many tokens a completion's `usage` tells; None when it does not."""
    usage = answer.get("usage")
    count = usage.get(kind) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def check_url(url: str, flag: str = "--endpoint") -> str:
    """The address without a slash at its end; `UsageError` for what is none."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"{flag} is {url!r}; write http://HOST:PORT/v1.") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{flag} holds a name or password; leave them out and set {KEY_NAME}.")
    wrong = parts.query or parts.fragment or any(one.isspace() for one in url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or wrong:
        raise UsageError(f"{flag} is {url!r}; write http://HOST:PORT/v1.")
    return url.rstrip("/")


def seconds_asked(header: str | None) -> float | None:
    """Retry-After as seconds from now: a number or a date; None when it is missing or neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return seconds if seconds == seconds else None
