"""Check a question file and its pictures before a model answers it, all problems at once.

    python -m llava.eval.check_questions --question-file questions.jsonl --image-folder images \\
        [--annotation-file truth.jsonl]

Errors keep a file from being answered (exit code 2), notes do not (0). With an annotation file ids are
compared with those of the right answers.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.questions import WANTED, Question, QuestionReader, RowChecks
from llava.eval.science_questions import ScienceReader
from llava.findings import NOTE, CollectedProblems, Finding, Report, file_finding, line_findings
from llava.images import MAX_PIXELS
from llava.picture_checks import MODES, SEEN, ShownPictures, choose_mode, look_at
from llava.records import (
    SHOWN_PROBLEMS,
    DataError,
    PictureFolder,
    Row,
    is_json_lines,
    kind_of,
    parse_lines,
    read_object,
    read_rows,
    read_text,
    shorten,
)

ANNOTATIONS = "annotation file (rows with question_id)"
LISTS = ("data", "questions", "annotations")
"""Keys under which annotation files of public benchmarks keep their rows."""
ID_KEYS = {"questions": "question_id", "science": "id"}


def parser() -> CommandParser:
    """The flags; those of the answering programs have their names."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--question-file", type=Path, required=True, help="JSON lines, or a JSON array")
    add("--image-folder", help="folder that the rows' image fields are relative to")
    add("--annotation-file", type=Path, help="right answers, with the questions' ids")
    add("--format", choices=tuple(ID_KEYS), default="questions", help="science: ScienceQA's conversations")
    add("--check-pictures", choices=MODES, default="auto", help="decode pictures, or read their headers")
    pixels = "most pixels of a picture padded to a square; answering takes up to the default"
    add("--max-pixels", type=int, default=MAX_PIXELS, help=pixels)
    add("--show", type=int, default=SHOWN_PROBLEMS, help="findings of each kind that are shown")
    add("--json", action="store_true", help="print the report as JSON")
    return options


@dataclass
class QuestionChecker:
    """Reads the rows of a question file; what is found goes to the report."""

    report: Report
    reader: QuestionReader | ScienceReader
    problems: CollectedProblems
    key: str
    questions: list[tuple[Row, Question]] = field(default_factory=list)
    shown: ShownPictures = field(default_factory=ShownPictures)
    first_of: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Check the whole file, as far as it is JSON."""
        rows = rows_of(self.report)
        for row in rows:
            question = self.reader.read(row)
            for finding in self.problems.take(row, key=self.key):
                self.report.add(finding)
            if question is not None:
                self.questions.append((row, question))
                for finding in self._notes(row, question):
                    self.report.add(finding)
            self._remember_picture(row)
        self.report.facts |= {
            "rows": len(rows),
            "usable rows": len(self.questions),
            "pictures": len(self.shown.first),
        }

    def _notes(self, row: Row, question: Question) -> Iterator[Finding]:
        """An id that several questions share."""
        first = self.first_of.setdefault(str(question.question_id), row.place)
        if first != row.place:
            found = (
                f"{first} asks something else under this id; scores are paired by id, so ids should differ"
            )
            yield self._note(row, question, "id repeated", found)

    def _remember_picture(self, row: Row) -> None:
        """The picture of a row is to be looked at, whatever else is wrong with the row."""
        if isinstance(row.value, dict) and isinstance(row.value.get("image"), str):
            path, _ = self.reader.pictures.find(row.value["image"])
            if path is not None:
                self.shown.add(path, row, row.value.get(self.key))

    def _note(self, row: Row, question: Question, kind: str, message: str) -> Finding:
        return Finding(NOTE, kind, message, row.number, row.place, question.question_id, self.key)

    def compare(self, annotated: dict[str, object]) -> None:
        """Note ids that the annotation lacks or writes as another type, and how many it has beyond."""
        asked = set()
        for row, question in self.questions:
            name = str(question.question_id)
            asked.add(name)
            if name not in annotated:
                found = "the annotation file has no such id; its answer will not be scored"
                self.report.add(self._note(row, question, "id without an annotation", found))
            elif type(annotated[name]) is not type(question.question_id):
                found = (
                    f"found {kind_of(question.question_id)}, the annotation has {kind_of(annotated[name])}"
                )
                message = (
                    f"{found} ({shorten(annotated[name])}); our scorers compare ids as texts, others do not"
                )
                self.report.add(self._note(row, question, "id of another type", message))
        self.report.facts["annotations"] = len(annotated)
        if beyond := len(annotated.keys() - asked):
            found = f"{beyond:,} of {len(annotated):,} annotations belong to no question of this file"
            self.report.add(Finding(NOTE, "annotations without a question", found))


def rows_of(report: Report) -> list[Row]:
    """The rows of the file; lines that are no JSON, and a file that is none, are reported."""
    try:
        text = read_text(report.file, WANTED)
        if not is_json_lines(text):
            return read_rows(report.file, WANTED)
    except DataError as error:
        report.add(file_finding(error, report.file))
        return []
    rows, broken = parse_lines(text)
    for finding in line_findings(broken):
        report.add(finding)
    return rows


def annotated_ids(path: Path, key: str) -> dict[str, object]:
    """Id as text -> id as it is written: of rows with `key` (or question_id or id), or the keys of an object.

    `DataError` when the file cannot be read, `UsageError` when it has no ids.
    """
    keys = dict.fromkeys((key, "question_id", "id"))
    text = read_text(path, ANNOTATIONS)
    if is_json_lines(text) or text.lstrip().startswith("["):
        rows = [row.value for row in read_rows(path, ANNOTATIONS)]
    else:
        rows = [read_object(path, ANNOTATIONS)]
    if len(rows) == 1 and isinstance(rows[0], dict) and not keys.keys() & rows[0].keys():
        whole = rows[0]
        lists = [found for name in LISTS if isinstance(found := whole.get(name), list)]
        if not lists:
            return {name: name for name in whole}
        rows = lists[0]
    found = (next((row[name] for name in keys if name in row), None) for row in rows if isinstance(row, dict))
    ids = {str(value): value for value in found if isinstance(value, str | int)}
    if not ids:
        raise UsageError(f"{path} has no row with {' or '.join(keys)}; name the file of the right answers.")
    return ids


def report_of(options: Namespace) -> Report:
    """Check everything that the flags name."""
    report, problems = Report(options.question_file), CollectedProblems(options.question_file)
    pictures, checks = PictureFolder(options.image_folder, flag="--image-folder"), RowChecks(problems)
    reader = (
        QuestionReader(pictures, checks)
        if options.format == "questions"
        else ScienceReader(pictures, checks, ask_for_letter=False)
    )
    checker = QuestionChecker(report, reader, problems, ID_KEYS[options.format])
    annotated = annotated_ids(options.annotation_file, checker.key) if options.annotation_file else None
    checker.read()
    if annotated is not None:
        checker.compare(annotated)
    mode = choose_mode(options.check_pictures, len(checker.shown.first))
    report.facts["pictures seen"] = SEEN[mode]
    if mode != "none":
        checker.shown.check(partial(look_at, decode=mode == "full", max_pixels=options.max_pixels), report)
    if checker.questions:
        row, question = checker.questions[0]
        report.samples.append((f"{row.place} asks:", question.text))
    return report


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Check, print the report, and end with its exit code."""
    options = parser().parse(argv)
    if not 1 <= options.max_pixels <= MAX_PIXELS:
        raise UsageError(f"--max-pixels is {options.max_pixels}; it must be from 1 to {MAX_PIXELS}.")
    report_of(options).print_and_exit(as_json=options.json, shown=max(0, options.show))


if __name__ == "__main__":
    main()
