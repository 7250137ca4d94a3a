"""A judge model behind an OpenAI-compatible server: some prompts at a time, each judgement kept at once.

What passes by itself is tried again (see `endpoint`); a prompt that the server refuses has a `Failure`, and
the others go on. Any other error ends the run; the same command goes on from the judgements that are there.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from llava.eval.endpoint import Completion, Endpoint, Refused
from llava.eval.judgements import Judgements
from llava.eval.outcomes import Failure
from llava.eval.workers import Workers

PER_PRICE = 1_000_000
"""Tokens that a price is for."""


@dataclass(frozen=True)
class Asking:
    """The judge's name at the server, and how it is asked: `system` says what its part is."""

    model: str
    system: str
    temperature: float
    max_tokens: int

    def request(self, prompt: str) -> dict[str, object]:
        """A chat-completions request."""
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": prompt}]
        request: dict[str, object] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return request | ({"seed": 0} if self.temperature > 0 else {})

    def key(self, prompt: str) -> str:
        """What a judgement is known by."""
        return hashlib.sha256(json.dumps(self.request(prompt), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Verdicts:
    """What came of all prompts: prompt -> judgement or failure, and how much of it was asked by this run."""

    said: Mapping[str, Completion | Failure]
    asked: tuple[Completion, ...]

    def cost_line(self, model: str, price: tuple[float, float] | None) -> str:
        """What this run asked, in tokens and, by the price per million of them in and out, in money."""
        kept = len(self.said) - len(self.asked) - len(self.failures())
        line = f"Judge {model}: {len(self.asked)} judgements asked, {kept} kept from before"
        prompt = [one.prompt_tokens for one in self.asked if one.prompt_tokens is not None]
        completion = [one.completion_tokens for one in self.asked if one.completion_tokens is not None]
        line += f"; {sum(prompt)} prompt and {sum(completion)} completion tokens"
        if min(len(prompt), len(completion)) < len(self.asked):
            line += " as far as the server tells"
        if price is not None:
            cost = (sum(prompt) * price[0] + sum(completion) * price[1]) / PER_PRICE
            line += f", cost {cost:.4f} at {price[0]:g} and {price[1]:g} per million"
        return line + "\n"

    def failures(self) -> dict[str, Failure]:
        """Prompts that the server refused."""
        return {prompt: one for prompt, one in self.said.items() if isinstance(one, Failure)}


def judge_all(
    prompts: Sequence[str],
    asking: Asking,
    kept: Judgements,
    *,
    open_endpoint: Callable[[], Endpoint],
    is_readable: Callable[[str], bool],
    concurrency: int,
) -> Verdicts:
    """A judgement of every prompt; those that are kept and readable are not asked again.

    Args:
        open_endpoint: gives the server, only called when there is something to ask.
        is_readable: whether a judgement says what was wanted.
    """
    keys = {prompt: asking.key(prompt) for prompt in prompts}
    said: dict[str, Completion | Failure] = {
        prompt: kept.known[key] for prompt, key in keys.items() if key in kept.known
    }
    readable = {key for key, one in kept.known.items() if is_readable(one.text)}
    todo = [prompt for prompt, key in keys.items() if key not in readable]
    asked: list[Completion] = []
    requests = [asking.request(prompt) for prompt in todo]
    for place, outcome in ask_all(open_endpoint(), requests, concurrency) if todo else ():
        said[todo[place]] = outcome
        if isinstance(outcome, Completion):
            kept.add(keys[todo[place]], outcome)
            asked.append(outcome)
    return Verdicts(said, tuple(asked))


def ask_all(
    endpoint: Endpoint, requests: Sequence[Mapping[str, object]], concurrency: int
) -> Iterator[tuple[int, Completion | Failure]]:
    """(place, outcome) of every request, as they come."""

    def ask(request: Mapping[str, object]) -> Completion | Failure:
        try:
            return endpoint.complete(request)
        except Refused as error:
            return Failure(str(error))

    shown = sys.stderr.isatty()
    with (
        Workers(ask, concurrency) as workers,
        tqdm(total=len(requests), disable=not shown, unit="judgement") as bar,
    ):
        try:
            for place, request in enumerate(requests):
                for done in workers.wait_for_room():
                    bar.update()
                    yield done
                workers.start(place, request)
            for done in workers.rest():
                bar.update()
                yield done
        finally:
            endpoint.stopped.set()  # pauses of other workers end here
