"""From the command line of a review program to its file of reviews, in the order of the questions.

A review has the original's fields and `sha256`, by which its judgement is known (see `judgements`). One
without two readable scores has -1 twice, as in the original, and counts in no mean.
"""

import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import PARTIAL, UsageError
from llava.eval.answer_files import wanted_path, write_text
from llava.eval.endpoint import Completion
from llava.eval.judge import Asking, Verdicts, judge_all
from llava.eval.judge_flags import add_judge_flags, asking_of, check_judge_flags, open_judge, price_of
from llava.eval.judgements import judgements_beside, refuse_foreign
from llava.eval.metrics.gpt_review import FAILED, parse_score
from llava.eval.metrics.pairing import tell
from llava.eval.outcomes import Failure
from llava.eval.reviews import Form, Pair, Sources, read_pairs
from llava.terminal import note, say

SYSTEM = "You are a fair and exact judge of how good answers are."
NOT_JUDGED = "question was not judged|questions were not judged"
UNREADABLE = "review has no readable scores|reviews have no readable scores"


def review_parser(description: str, *, with_context: bool) -> CommandParser:
    """The original's flags, and those of a judge."""
    options = CommandParser(description)
    add = options.add_argument
    add("-q", "--question", help="JSON lines with question_id, text, category and image")
    if with_context:
        add("-c", "--context", help="JSON lines with image and what it shows")
    add("-a", "--answer-list", nargs="+", default=[], help="two answer files, the reference's first")
    add("-r", "--rule", help="JSON: how each category is judged")
    add("-o", "--output", help="JSON lines to write, a review per question")
    add_judge_flags(options, temperature=0.2, max_tokens=1024)
    return options


def sources_of(options: Namespace, form: Form) -> Sources:
    """The files that the flags name; `UsageError` for those that are missing."""
    if len(options.answer_list) != 2:
        raise UsageError(f"--answer-list names {len(options.answer_list)} files; two were wanted.")
    first, second = map(Path, options.answer_list)
    question, rule = wanted_path(options.question, "--question"), wanted_path(options.rule, "--rule")
    context = None if form.describe is None else wanted_path(options.context, "--context")
    return Sources(question, (first, second), rule, context)


def is_readable(judgement: str) -> bool:
    """Whether there are two scores in it."""
    return parse_score(judgement) != FAILED


def review(options: Namespace, form: Form) -> None:
    """Judge all pairs and write the reviews; `SystemExit` (3) when some could not be judged."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_judge_flags(options)
    sources, output = sources_of(options, form), wanted_path(options.output, "--output")
    refuse_foreign(output)
    pairs, asking = read_pairs(sources, form), asking_of(options, SYSTEM)
    with judgements_beside(output) as kept:
        verdicts = judge_all(
            [pair.prompt for pair in pairs if pair.lacking is None],
            asking,
            kept,
            open_endpoint=lambda: open_judge(options),
            is_readable=is_readable,
            concurrency=options.concurrency,
        )
        rows = [review_row(number, pair, verdicts, asking) for number, pair in enumerate(pairs, start=1)]
        write_text("".join(json.dumps(row) + "\n" for row in rows), output)
    say(verdicts.cost_line(asking.model, price_of(options)))
    end_review(output, rows)


def review_row(number: int, pair: Pair, verdicts: Verdicts, asking: Asking) -> dict[str, object]:
    """A line of the output; one that could not be judged says the `error`."""
    outcome = verdicts.said.get(pair.prompt) if pair.lacking is None else Failure(pair.lacking)
    assert outcome is not None, "every whole pair was judged"
    content = outcome.text if isinstance(outcome, Completion) else ""
    row: dict[str, object] = {"id": number, "question_id": pair.question_id}
    for place, answer in enumerate(pair.answers, start=1):
        row[f"answer{place}_id"] = None if answer is None else answer.answer_id
    row |= {"category": pair.category, "content": content, "tuple": list(parse_score(content))}
    row |= {"judge": asking.model, "sha256": asking.key(pair.prompt)}
    return row | ({"error": outcome.reason} if isinstance(outcome, Failure) else {})


def end_review(output: Path, rows: Sequence[dict[str, object]]) -> None:
    """Say how it ended."""
    failed = [row for row in rows if "error" in row]
    unreadable = [row["question_id"] for row in rows if row["tuple"] == list(FAILED) and "error" not in row]
    readable = len(rows) - len(failed) - len(unreadable)
    note(f"{readable} of {len(rows)} reviews have scores: {output}\n")
    if unreadable:
        note(f"{tell(unreadable, UNREADABLE)}; they count in no mean, the same command asks them again.\n")
    if failed:
        told = tell((row["question_id"] for row in failed), NOT_JUDGED)
        note(f"error: {told}: {failed[0]['error']}\nMend the cause and give the same command again.\n")
    if failed or not readable:
        raise SystemExit(PARTIAL)
