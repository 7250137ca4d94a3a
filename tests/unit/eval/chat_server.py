"""A server that speaks the chat-completions protocol, and misbehaves as it is told."""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from PIL import Image

TEXT = "application/json"


@dataclass
class Reply:
    """What goes back for one request: a status and a body, maybe late; None as the body hangs up."""

    status: int = 200
    body: bytes | None = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    late: float = 0.0


def completion(text: object) -> Reply:
    """A good answer."""
    row = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    return Reply(body=json.dumps(row).encode())


def question_of(request: dict) -> str:
    """The text that was asked."""
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else content[1]["text"]


def picture_of(request: dict) -> Image.Image | None:
    """The picture that came with it."""
    content = request["messages"][0]["content"]
    if isinstance(content, str):
        return None
    head, _, data = content[0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def answer_of(request: dict) -> str:
    """A text that depends on the question and the picture's first pixel."""
    picture = picture_of(request)
    colour = None if picture is None else picture.getpixel((0, 0))
    return f"{question_of(request)} {colour}"


@dataclass
class ChatServer:
    """What was asked, and how it is answered: `reply` gets the request and how often it came before."""

    reply: Callable[[dict, int], Reply] = lambda request, before: completion(answer_of(request))
    models: tuple[str, ...] = ("tiny",)
    requests: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_a_time: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def questions(self) -> list[str]:
        """The texts asked, in the order in which they came."""
        return [question_of(request) for request in self.requests]

    def handle(self, path: str, request: dict, key: str | None) -> Reply:
        """One request to chat completions."""
        with self._lock:
            before = self.requests.count(request)
            self.requests.append(request)
            self.keys.append(key)
            self.paths.append(path)
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            reply = self.reply(request, before)
            time.sleep(reply.late)
            return reply
        finally:
            with self._lock:
                self._now -= 1


class Handler(BaseHTTPRequestHandler):
    """The protocol; `server.chat` says what is answered."""

    def do_GET(self) -> None:
        chat: ChatServer = self.server.chat  # type: ignore[attr-defined]
        listed = {"object": "list", "data": [{"id": name} for name in chat.models]}
        self.send(Reply(body=json.dumps(listed).encode()))

    def do_POST(self) -> None:
        chat: ChatServer = self.server.chat  # type: ignore[attr-defined]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send(chat.handle(self.path, request, self.headers["Authorization"]))

    def send(self, reply: Reply) -> None:
        """Write a reply, or drop the connection."""
        if reply.body is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": TEXT, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
        except OSError:
            return  # the client has given up

    def log_message(self, *args: object) -> None:
        """Silence."""

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return  # dropped


class QuietServer(ThreadingHTTPServer):
    """Without tracebacks for connections that were dropped."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


@contextmanager
def serving(chat: ChatServer) -> Iterator[ChatServer]:
    """The server on a free port of this machine, in a thread."""
    server = QuietServer(("127.0.0.1", 0), Handler)
    server.chat = chat  # type: ignore[attr-defined]
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
