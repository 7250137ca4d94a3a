"""The flags of all programs that ask a judge model, and how they become a server and a way of asking.

The address is --base-url or OPENAI_BASE_URL, else OpenAI's own when OPENAI_API_KEY is set; the key comes from
OPENAI_API_KEY only and stands in no message and no file.
"""

import math
import os
from argparse import Namespace

from llava.command_line import CommandParser
from llava.errors import UsageError
from llava.eval.endpoint import KEY_NAME, Endpoint, Patience
from llava.eval.judge import Asking

URL_NAME = "OPENAI_BASE_URL"
OPENAI = "https://api.openai.com/v1"
MODEL = "gpt-4-0613"


def add_judge_flags(options: CommandParser, *, temperature: float, max_tokens: int) -> None:
    """The flags; both numbers are defaults."""
    add = options.add_argument
    add("--judge-model", default=MODEL, help="the judge's name at the server")
    add("--base-url", help=f"OpenAI-compatible server, http://HOST:PORT/v1; by default {URL_NAME}")
    add("--judge-temperature", type=float, default=temperature, help="0 = greedy")
    add("--max-tokens", type=int, default=max_tokens, help="longest judgement")
    add("--concurrency", type=int, default=4, help="judgements that are asked at a time")
    add(
        "--timeout",
        type=float,
        default=Patience.timeout,
        help="seconds without a sign until a try is given up",
    )
    add("--tries", type=int, default=Patience.tries, help="how often a judgement is asked at most")
    add(
        "--price",
        type=float,
        nargs=2,
        metavar=("IN", "OUT"),
        help="price of a million tokens of prompts and of judgements, to tell what a run costs",
    )


def check_judge_flags(options: Namespace) -> None:
    """`UsageError` for numbers that nothing can be asked with."""
    for name in ("max_tokens", "concurrency", "tries"):
        if getattr(options, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is {getattr(options, name)}; it must be at least 1.")
    if not 0 <= options.judge_temperature < math.inf:
        raise UsageError(f"--judge-temperature is {options.judge_temperature}; 0 or more was wanted.")
    if not 0 < options.timeout < math.inf:
        raise UsageError(f"--timeout is {options.timeout}; a number of seconds above 0 was wanted.")
    if any(not 0 <= price < math.inf for price in price_of(options) or ()):
        raise UsageError("--price wants two numbers that are not negative, per million tokens in and out.")


def price_of(options: Namespace) -> tuple[float, float] | None:
    """Prices of a million tokens in and out; None where they were not given."""
    return None if options.price is None else (options.price[0], options.price[1])


def asking_of(options: Namespace, system: str) -> Asking:
    """How the judge is asked."""
    return Asking(options.judge_model, system, options.judge_temperature, options.max_tokens)


def open_judge(options: Namespace) -> Endpoint:
    """The server; `UsageError` when nothing says where it is."""
    url = options.base_url or os.environ.get(URL_NAME)
    if not url and not os.environ.get(KEY_NAME):
        raise UsageError(
            f"there is no judge to ask: set {KEY_NAME} for OpenAI's {options.judge_model}, or {URL_NAME} (or "
            "--base-url) to another OpenAI-compatible server and --judge-model to its model."
        )
    patience = Patience(timeout=options.timeout, tries=options.tries)
    named = "--base-url" if options.base_url else URL_NAME
    return Endpoint(url or OPENAI, patience, flag=named, model_flag="--judge-model")
