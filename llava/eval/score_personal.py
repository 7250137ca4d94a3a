"""Score answers about taught identities and about the base model's own skills against a truth file.

    python -m llava.eval.score_personal --truth truth.jsonl --answers personal.jsonl retention.jsonl \\
        --out scores.json [--base-scores base/scores.json]

A line of the truth: {"question_id", "split", "answer", "identity": who it is about or null, "direction"}
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.command_line import CommandParser
from llava.durable import write_whole
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import ANSWERS, read_entries, refuse_repeated
from llava.eval.evidence import add_results_flag, publish, sha256
from llava.eval.metrics.pairing import TWICE
from llava.eval.metrics.personal import (
    PERSONAL_SPLITS,
    Graded,
    Truth,
    against_base,
    figures_of,
    grade,
    score,
    scored_of,
)
from llava.records import Problems
from llava.terminal import say

TRUTH = 'truth file (JSON lines with "question_id", "split" and "answer")'
SHOWN_IDS = 5


@dataclass(frozen=True)
class Answer:
    """What a model said to one question."""

    question: str
    text: str
    error: str | None = None


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--truth", type=Path, required=True, help="true answers, one JSON line per question")
    options.add_argument(
        "--answers", type=Path, nargs="+", required=True, help="answer files that together answer the truth"
    )
    options.add_argument("--names", nargs="*", help="the taught names; by default the truth's identities")
    options.add_argument(
        "--part", choices=("all", "personal", "retention"), default="all", help="score only these splits"
    )
    options.add_argument(
        "--base-scores", type=Path, help="scores.json of the untouched base, to compare with"
    )
    options.add_argument("--out", type=Path, required=True, help="scores.json to write")
    options.add_argument(
        "--allow-missing", action="store_true", help="score an incomplete run; missing answers count as wrong"
    )
    add_results_flag(options)
    return options


def read_truth(path: Path) -> list[Truth]:
    """All true answers. `DataError` lists what is wrong with the file."""
    entries = read_entries(path, TRUTH, ("question_id", "split", "answer"))
    refuse_repeated(entries, path, TWICE)
    return [
        Truth(
            entry.fields["question_id"],  # type: ignore[arg-type]
            entry.text("split"),
            entry.text("answer"),
            entry.fields.get("identity"),  # type: ignore[arg-type]
            entry.fields.get("direction"),  # type: ignore[arg-type]
        )
        for entry in entries
    ]


def read_answers(paths: Sequence[Path]) -> dict[str, Answer]:
    """Question id -> answer, from all files. `DataError` for two answers to one question."""
    answers: dict[str, Answer] = {}
    for path in paths:
        problems = Problems(path)
        for entry in read_entries(path, ANSWERS, ("question_id", "text"), ("prompt",)):
            if entry.question_id in answers:
                found = f"found {entry.fields['question_id']!r} a second time; keep one answer per question"
                problems.add(f"{entry.place}, question_id", found)
            answers[entry.question_id] = Answer(entry.text("prompt"), entry.text(), entry.error)
        problems.raise_any()
    return answers


def check_coverage(truths: Sequence[Truth], answers: Mapping[str, Answer], *, allow_missing: bool) -> None:
    """`UsageError` for questions without an answer, unless that is allowed."""
    found = [answers.get(str(row.question_id)) for row in truths]
    missing = [
        row.question_id
        for row, answer in zip(truths, found, strict=True)
        if answer is None or answer.error is not None
    ]
    errors = [answer.error for answer in found if answer is not None and answer.error is not None]
    if missing and not allow_missing:
        covered = 1 - len(missing) / len(truths)
        failed = f"; {len(errors)} of them could not be answered ({errors[0]})" if errors else ""
        raise UsageError(
            f"{len(missing)} of {len(truths)} questions have no answer (coverage {covered:.1%}), first "
            f"{', '.join(str(name) for name in missing[:SHOWN_IDS])}{failed}; finish answering (the same "
            "command goes on where it stopped), or score it as it is with --allow-missing."
        )


def check_foreign(truths: Sequence[Truth], answers: Mapping[str, Answer]) -> None:
    """`UsageError` when answers belong to other questions."""
    known = {str(row.question_id) for row in truths}
    foreign = [name for name in answers if name not in known]
    if foreign:
        raise UsageError(
            f"{len(foreign)} answers belong to no question of the truth file, first "
            f"{', '.join(foreign[:SHOWN_IDS])}; give the answers to these very questions."
        )


def in_part(split: str, part: str) -> bool:
    """Whether a split is to be scored."""
    return part == "all" or (split in PERSONAL_SPLITS) == (part == "personal")


def score_files(options: Namespace) -> tuple[dict[str, Any], list[Graded]]:
    """Everything for scores.json, and the graded answers."""
    truths, answers = read_truth(options.truth), read_answers(options.answers)
    check_foreign(truths, answers)
    names = options.names or sorted({row.identity for row in truths if row.identity is not None})
    truths = [row for row in truths if in_part(row.split, options.part)]
    if not truths:
        raise UsageError(f"{options.truth} has no {options.part} questions; use --part all.")
    check_coverage(truths, answers, allow_missing=options.allow_missing)
    graded, errors = [], 0
    for row in truths:
        found = answers.get(str(row.question_id))
        text = None if found is None or found.error is not None else found.text
        graded.append(grade(row, text, question="" if found is None else found.question, names=names))
        errors += found is not None and found.error is not None
    scores: dict[str, Any] = score(graded)
    scores["coverage"]["errors"] = errors
    scores |= {
        "names": list(names),
        "truth_sha256": sha256(options.truth),
        "answers_sha256": [sha256(path) for path in options.answers],
    }
    if options.base_scores is not None:
        scores["against_base"] = against_base(scores, read_base(options.base_scores, scores))
    return scores, graded


def read_base(path: Path, scores: Mapping) -> Mapping:
    """The base model's scores. `UsageError` when they are about other questions."""
    try:
        base = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--base-scores {path} cannot be read ({error}); score the base model first."
        ) from None
    if base.get("truth_sha256") != scores["truth_sha256"] or set(scores["splits"]) - set(base["splits"]):
        raise UsageError(
            f"--base-scores {path} is about another truth file; score the base on the same questions."
        )
    return base


def summary_text(scores: Mapping) -> str:
    """The scores in a few lines; an incomplete run says its coverage first."""
    coverage = scores["coverage"]
    lines = []
    if coverage["answered"] < coverage["questions"]:
        share = coverage["answered"] / coverage["questions"]
        lines.append(
            f"INCOMPLETE: {coverage['answered']} of {coverage['questions']} questions answered "
            f"({share:.1%}), {coverage.get('errors', 0)} could not be answered; all of these count as wrong"
        )
    for name, value in scores["summary"].items():
        if value is not None:
            interval = f"{100 * value['low']:5.1f} to {100 * value['high']:5.1f}"
            lines.append(f"{name.replace('_', ' '):20} {100 * value['value']:5.1f} %   {interval}")
    return "\n".join(lines) + "\n"


def write_json(value: Mapping, path: Path) -> None:
    """JSON with one top-level key per line, so that long lists stay on theirs."""
    lines = [f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in value.items()]
    write_whole(path, "{\n" + ",\n".join(lines) + "\n}\n")


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Score, write scores.json and say the main numbers."""
    options = parser().parse(argv)
    scores, graded = score_files(options)
    write_json(scores, options.out)
    say(summary_text(scores))
    figures = figures_of(scores)
    publish(
        "personal" if "learned" in figures else "retention",
        figures,
        next(iter(figures)),
        scored_of(graded),
        answers=options.answers,
        truth=[options.truth],
        results_dir=options.results_dir,
        split=None if options.part == "all" else options.part,
    )


if __name__ == "__main__":
    main()
