"""Questions to a server, ordered by picture and many at a time, in place of a model of our own.

Questions about one picture follow each other, so that a server which keeps prefixes reads the picture once.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from llava.errors import UsageError
from llava.eval.endpoint import Endpoint, Refused
from llava.eval.outcomes import Failure, Outcome
from llava.eval.pictures_ahead import PicturesAhead
from llava.eval.questions import Question
from llava.eval.workers import Workers

WINDOW_ROUNDS = 16
"""Questions are ordered by picture within so many times `concurrency`."""


@dataclass(frozen=True)
class Asking:
    """The model's name at the server, and how its answers are drawn: temperature 0 is greedy."""

    model: str
    temperature: float = 0.0
    top_p: float | None = None
    max_new_tokens: int = 128
    seed: int = 0

    def request(self, question: Question, picture: str | None) -> dict[str, object]:
        """A chat-completions request; the picture, a data URL, comes before the text."""
        content: list[dict[str, object]] = [{"type": "text", "text": question.text}]
        if picture is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": picture}})
        request: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content if picture is not None else question.text}],
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
        }
        if self.temperature > 0:
            request["seed"] = self.seed
        if self.top_p is not None:
            request["top_p"] = self.top_p
        return request


@dataclass(frozen=True)
class EndpointEngine:
    """Answers by asking `endpoint`, `concurrency` questions at a time; `open_picture` opens a picture's name
    as RGB.
    """

    endpoint: Endpoint
    asking: Asking
    open_picture: Callable[[str], Image.Image]
    concurrency: int = 16

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Outcome]]]:
        """(index, answer) of every question, each by itself, as they come.

        A question that the server refuses, or whose picture cannot be used, has a `Failure`. Any other error
        ends it, after the answers that are there.
        """
        for one in self.answer(questions):
            yield [one]

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Outcome]]:
        """The same, not in lists."""
        self.endpoint.stopped.clear()
        with PicturesAhead(self._data_url) as pictures, Workers(self._ask, self.concurrency) as workers:
            try:
                for index, picture in self._in_order(questions, pictures):
                    if isinstance(picture, Failure):
                        yield index, picture
                        continue
                    yield from workers.wait_for_room()
                    workers.start(index, (questions[index], picture))
                yield from workers.rest()
            finally:
                self.endpoint.stopped.set()  # pauses of other workers end here

    def _in_order(
        self, questions: Sequence[Question], pictures: PicturesAhead[str]
    ) -> Iterator[tuple[int, str | Failure | None]]:
        """(index, picture as data URL) of every question, by picture within a window."""
        order = order_by_picture(questions, window=WINDOW_ROUNDS * self.concurrency)
        paths = [questions[index].image_path for index in order]
        pictures.expect(path for path in paths if path is not None)
        shown, url = None, None
        for index, path in zip(order, paths, strict=True):
            if path != shown:
                shown, url = path, None if path is None else take_or_say(pictures, path)
            yield index, url

    def _ask(self, job: tuple[Question, str | None]) -> Outcome:
        try:
            return self.endpoint.ask(self.asking.request(*job)).strip()
        except Refused as error:
            return Failure(str(error))

    def _data_url(self, path: str) -> str:
        return data_url(self.open_picture(path))


def take_or_say(pictures: PicturesAhead[str], path: str) -> str | Failure:
    """A picture, or why there is none."""
    try:
        return pictures.take(path)
    except UsageError as error:
        return Failure(str(error))


def order_by_picture(questions: Sequence[Question], *, window: int) -> list[int]:
    """Indices, those of one picture side by side within each run of `window` questions."""
    order: list[int] = []
    for start in range(0, len(questions), window):
        groups: dict[str | None, list[int]] = {}
        for index in range(start, min(start + window, len(questions))):
            groups.setdefault(questions[index].image_path, []).append(index)
        order += [index for group in groups.values() for index in group]
    return order


def data_url(image: Image.Image) -> str:
    """An RGB picture as a PNG in a data URL: nothing of it is lost, and it holds no rotation that a server
    would apply.
    """
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
