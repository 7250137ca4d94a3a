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


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-file", help="the benchmark's JSON file")
    options.add_argument("--result-file", help="JSON lines with question_id (the picture), prompt and text")
    options.add_argument("--result-dir", help=f"folder; every {SUFFIX} file in it is scored")
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


def report_file(path: Path, asked: Mapping[str, Mapping[str, Asked]]) -> str:
    """What is printed about an answer file; one that lacks answers says how much it covers."""
    scores = score_file(path, asked)
    total = sum(one.times for questions in asked.values() for one in questions.values())
    return report(path.stem, scores) + coverage_line(len(scores), total)


def score_file(path: Path, asked: Mapping[str, Mapping[str, Asked]]) -> list[float]:
    """The score of each answer. `DataError` lists those whose question is not found, or answered already."""
    problems, scores, seen = Problems(path), [], Counter()
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
        seen[entry.question_id, question] += 1
        if seen[entry.question_id, question] > questions[question].times:
            problems.add(entry.place, f"answers {shorten(question)} again; keep one answer per question")
        scores.append(questions[question].scores.get(normalise_answer(entry.text()), 0.0))
    problems.raise_any()
    every = [one for questions in asked.values() for one in questions.values()]
    missing = [f"{one.image} {one.question!r}" for one in every if not seen[one.image, one.question]]
    if missing:
        logger.warning("%s: of %d, %s; not scored", path, len(every), tell(missing, MISSING))
    return scores


def report_folder(folder: Path, asked: Mapping[str, Mapping[str, Asked]]) -> str:
    """The reports of all answer files of a folder, with a line for each other file."""
    if not folder.is_dir():
        raise UsageError(f"--result-dir {folder} is no folder{suggestion(folder)}.")
    parts = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        known = file.name.endswith(SUFFIX)
        parts.append(report_file(file, asked) if known else f"Skipping {file.name}\n")
    if not any(file.name.endswith(SUFFIX) for file in folder.iterdir()):
        raise UsageError(f"--result-dir {folder} holds no {SUFFIX} file; name the folder of the answers.")
    return "".join(parts)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print name, samples and accuracy of each answer file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    if not options.result_file and not options.result_dir:
        raise UsageError("name the answers with --result-file or --result-dir (see --help).")
    asked = read_annotations(wanted_path(options.annotation_file, "--annotation-file"))
    text = ""
    if options.result_file:
        text += report_file(Path(options.result_file), asked)
    if options.result_dir:
        text += report_folder(Path(options.result_dir), asked)
    say(text)


if __name__ == "__main__":
    main()
