"""TextVQA: the VQA server's soft score of an answer file, or of every .jsonl file of a folder.

    python -m llava.eval.eval_textvqa --annotation-file TextVQA_0.5.1_val.json --result-file answers.jsonl

The answers' question_id is the picture's, their prompt holds the question.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import coverage_line, read_answers, wanted_path
from llava.eval.evidence import Scored, add_results_flag, figure, publish
from llava.eval.metrics.pairing import MISSING, tell
from llava.eval.metrics.textvqa import find_question, report
from llava.eval.metrics.vqa_text import answer_scores, normalise_answer
from llava.records import Problems, Row, field_of, kind_of, read_object, shorten, suggestion
from llava.terminal import say

logger = logging.getLogger(__name__)

ANNOTATIONS = 'annotation file (JSON with "data": [{"image_id", "question", "answers"}, ...])'
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Asked:
    """A question about a picture, what the answers to it are worth, and how often the benchmark asks it."""

    image: str
    question: str
    scores: Mapping[str, float]
    times: int = 1

    def name(self, time: int = 1) -> str:
        """What tells it from all others: picture, question, and which of several times it is asked."""
        return f"{self.image} {self.question}" + (f" ({time})" if time > 1 else "")


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-file", help="the benchmark's JSON file")
    options.add_argument("--result-file", help="JSON lines with question_id (the picture), prompt and text")
    options.add_argument("--result-dir", help=f"folder; every {SUFFIX} file in it is scored")
    add_results_flag(options)
    return options


def read_annotations(path: Path) -> dict[str, dict[str, Asked]]:
    """Picture -> question in lower case -> its answers; of a question asked twice the last ones, as in the
    original. `DataError` lists all problems of the file.
    """
    rows = read_object(path, ANNOTATIONS).get("data")
    problems = Problems(path)
    if not isinstance(rows, list) or not rows:
        problems.add("data", f"found {kind_of(rows)}; an array of questions was wanted")
        rows = []
    asked: dict[str, dict[str, Asked]] = {}
    for number, value in enumerate(rows):
        entry = annotation_of(Row(number, f"data row {number}", value), problems)
        if entry is None:
            continue
        questions = asked.setdefault(entry.image, {})
        before = questions.get(entry.question)
        questions[entry.question] = entry if before is None else replace(entry, times=before.times + 1)
    problems.raise_any()
    return asked


def annotation_of(row: Row, problems: Problems) -> Asked | None:
    """One question, or None when something is wrong with it."""
    image, question = field_of(row, "image_id", problems), field_of(row, "question", problems)
    if image is None or question is None or not isinstance(row.value, dict):
        return None
    answers = row.value.get("answers")
    if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
        problems.add(f"{row.place}, answers", f"found {shorten(answers)}; a list of texts was wanted")
        return None
    try:
        return Asked(str(image), str(question).lower(), answer_scores(answers))
    except ValueError as error:
        problems.add(f"{row.place}, answers", str(error))
        return None


def report_file(path: Path, asked: Mapping[str, Mapping[str, Asked]]) -> tuple[str, list[Scored]]:
    """What is printed about an answer file, and its rows; one that lacks answers says how much it covers."""
    rows = score_file(path, asked)
    scores = [row.value for row in rows if not row.missing]
    return report(path.stem, scores) + coverage_line(len(scores), len(rows)), rows


def score_file(path: Path, asked: Mapping[str, Mapping[str, Asked]]) -> list[Scored]:
    """A row per question that is asked. `DataError` lists answers whose question is not found, or answered
    already.
    """
    problems, rows, seen = Problems(path), [], Counter()
    for entry in read_answers(path, with_prompt=True):
        questions = asked.get(entry.question_id)
        if questions is None:
            problems.add(f"{entry.place}, question_id", f"no question is about {entry.question_id!r}")
            continue
        question = find_question(entry.text("prompt"), questions)
        if question is None:
            found = shorten(entry.text("prompt"))
            known = ", ".join(repr(text) for text in questions)
            problems.add(f"{entry.place}, prompt", f"found {found}; a prompt with {known} was wanted")
            continue
        one = questions[question]
        seen[one.name()] += 1
        if seen[one.name()] > one.times:
            problems.add(entry.place, f"answers {shorten(question)} again; keep one answer per question")
        said = normalise_answer(entry.text())
        name = one.name(seen[one.name()])
        rows.append(Scored(name, one.scores.get(said, 0.0), one.image, parsed=said or None))
    problems.raise_any()
    return rows + missing_rows(path, asked, seen)


def missing_rows(
    path: Path, asked: Mapping[str, Mapping[str, Asked]], seen: Mapping[str, int]
) -> list[Scored]:
    """The questions without an answer; the log tells them."""
    every = [one for questions in asked.values() for one in questions.values()]
    missing = [f"{one.image} {one.question!r}" for one in every if not seen.get(one.name())]
    if missing:
        logger.warning("%s: of %d, %s; not scored", path, len(every), tell(missing, MISSING))
    return [
        Scored(one.name(time), 0.0, one.image, missing=True)
        for one in every
        for time in range(seen.get(one.name(), 0) + 1, one.times + 1)
    ]


def files_of(folder: Path) -> list[Path]:
    """All files of a folder; `UsageError` when no answer file is among them."""
    if not folder.is_dir():
        raise UsageError(f"--result-dir {folder} is no folder{suggestion(folder)}.")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    if not any(file.name.endswith(SUFFIX) for file in files):
        raise UsageError(f"--result-dir {folder} holds no {SUFFIX} file; name the folder of the answers.")
    return files


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print name, samples and accuracy of each answer file, then the evidence of each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    if not options.result_file and not options.result_dir:
        raise UsageError("name the answers with --result-file or --result-dir (see --help).")
    if options.result_dir and options.results_dir:
        raise UsageError("--results-dir takes the results of one file; name it with --result-file.")
    truth = wanted_path(options.annotation_file, "--annotation-file")
    asked = read_annotations(truth)
    text, scored = "", []
    files = [Path(options.result_file)] if options.result_file else []
    for file in files + (files_of(Path(options.result_dir)) if options.result_dir else []):
        if file in files or file.name.endswith(SUFFIX):
            told, rows = report_file(file, asked)
            scored.append((file, rows))
        else:
            told = f"Skipping {file.name}\n"
        text += told
    say(text)
    for file, rows in scored:
        accuracy = figure([row for row in rows if not row.missing])
        publish(
            "textvqa",
            {"accuracy": accuracy},
            "accuracy",
            rows,
            answers=file,
            truth=[truth],
            results_dir=options.results_dir,
        )


if __name__ == "__main__":
    main()
