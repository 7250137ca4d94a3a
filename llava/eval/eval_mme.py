"""MME: accuracy and accuracy+ per task, and the sums of perception and cognition.

    python -m llava.eval.eval_mme --mme-dir MME_Benchmark_release_version --answers answers.jsonl [--out DIR]

The folder is the benchmark's release: TASK/*.txt or TASK/questions_answers_YN/*.txt, one file per picture; a
line is a question, a tab, and Yes or No. A question_id is TASK/PICTURE, the same for both questions of a
picture; the prompt tells which one is answered. With --out the answers are also written as the benchmark's
convert_answer_to_mme.py does, for its calculation.py.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import coverage_line, read_answers, write_text
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.mme import MmeQuestion, figures_of, plain, report, result_lines, score
from llava.eval.metrics.pairing import MISSING, tell
from llava.records import Problems, read_text, shorten, suggestion
from llava.terminal import say

logger = logging.getLogger(__name__)

SUBFOLDER = "questions_answers_YN"
WANTED = "text file of MME (question, tab, Yes or No)"


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--mme-dir", type=Path, required=True, help="MME_Benchmark_release_version")
    add("--answers", type=Path, required=True, help="JSON lines with question_id, prompt and text")
    add("--out", type=Path, help="folder for TASK.txt files that the benchmark's own program reads")
    add_results_flag(options)
    return options


def task_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(task, text file of a picture), in alphabetical order."""
    for task in sorted(path for path in folder.iterdir() if path.is_dir()):
        inner = task / SUBFOLDER
        for file in sorted((inner if inner.is_dir() else task).glob("*.txt")):
            yield task.name, file


def read_questions(folder: Path) -> list[MmeQuestion]:
    """All questions. `UsageError` without any; `DataError` lists what is wrong with the files."""
    if not folder.is_dir():
        raise UsageError(f"--mme-dir {folder} is no folder{suggestion(folder)}.")
    problems, found = Problems(folder), {}
    for task, file in task_files(folder):
        for number, line in enumerate(read_text(file, WANTED).splitlines(), start=1):
            place = f"{file.relative_to(folder)} line {number}"
            question = question_of(line, task, file, place, problems) if line.strip() else None
            if question is not None and found.setdefault(question.name, question).is_yes != question.is_yes:
                problems.add(place, f"{shorten(question.text)} stands above with the other answer")
    problems.raise_any()
    if not found:
        raise UsageError(
            f"--mme-dir {folder} holds no TASK/*.txt nor TASK/{SUBFOLDER}/*.txt; name the folder of MME's "
            "release."
        )
    return list(found.values())


def question_of(line: str, task: str, file: Path, place: str, problems: Problems) -> MmeQuestion | None:
    """One line, or None when something is wrong with it."""
    text, _, truth = line.strip().rpartition("\t")
    if not text or truth.strip().lower() not in ("yes", "no"):
        problems.add(place, f"found {shorten(line)}; a question, a tab, and Yes or No were wanted")
        return None
    return MmeQuestion(task, file.stem, text.strip(), truth.strip().lower() == "yes")


def pair_answers(path: Path, questions: Sequence[MmeQuestion]) -> dict[str, str]:
    """Name of a question -> what was answered. `DataError` lists answers to no question and second ones."""
    names, problems, answers = {question.name for question in questions}, Problems(path), {}
    known = {question.image for question in questions}
    for entry in read_answers(path, with_prompt=True):
        pieces = PurePosixPath(entry.question_id)
        image = f"{pieces.parts[0]}/{pieces.stem}" if pieces.parts else ""
        name = f"{image} {plain(entry.text('prompt'))}"
        if image not in known:
            problems.add(
                f"{entry.place}, question_id", f"found {entry.question_id!r}, of which there is no question"
            )
        elif name not in names:
            asked = " or ".join(
                repr(plain(question.text)) for question in questions if question.image == image
            )
            found = shorten(entry.text("prompt"))
            problems.add(f"{entry.place}, prompt", f"found {found}; a prompt with {asked} was wanted")
        elif name in answers:
            problems.add(entry.place, f"answers {shorten(name)} again; keep one answer per question")
        answers[name] = entry.text()
    problems.raise_any()
    return answers


def write_results(folder: Path, questions: Sequence[MmeQuestion], answers: Mapping[str, str]) -> None:
    """A file per task for the benchmark's own program."""
    for task, rows in result_lines(questions, answers).items():
        write_text("".join("\t".join(row) + "\n" for row in rows), folder / f"{task}.txt")


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the sums and the scores of the tasks."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    questions = read_questions(options.mme_dir)
    answers = pair_answers(options.answers, questions)
    missing = [question.name for question in questions if question.name not in answers]
    if missing:
        logger.warning("%s: %s; counted as wrong", options.answers, tell(missing, MISSING))
    if options.out is not None:
        write_results(options.out, questions, answers)
    rows = score(questions, answers)
    figures = figures_of(rows)
    say(report(figures, sorted({question.task for question in questions})))
    say(coverage_line(len(rows) - len(missing), len(rows)))
    publish(
        "mme",
        figures,
        next(iter(figures)),
        rows,
        answers=options.answers,
        truth=[options.mme_dir],
        results_dir=options.results_dir,
    )


if __name__ == "__main__":
    main()
