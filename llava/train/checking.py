"""All that can be said about a conversation file before a training, in one report: rows, pictures, lengths.

Rows are read by what training reads them with, so that a file without errors here is one that it takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

from llava.conversation import Template
from llava.errors import UsageError
from llava.findings import ERROR, NOTE, CollectedProblems, Finding, Report, file_finding, line_findings
from llava.images import MAX_PIXELS
from llava.picture_checks import SEEN, ShownPictures, choose_mode
from llava.processing import pictures_to_front, render_for_training
from llava.records import DataError, PictureFolder, Row, image_names
from llava.train.picture_check import check_pictures, kept_look
from llava.train.row_notes import RowNotes
from llava.train.row_stream import stream_rows
from llava.train.sample_index import IndexWriter, Sample, SampleIndex, index_in_memory
from llava.train.samples import WANTED, RowReader, read_samples

SPAN_START, SPAN_END = "⟦", "⟧"


@dataclass
class CheckedRows:
    """The good rows of a file, and where its pictures are shown.

    `rows` are (number, place) of each sample of the index; `shown` has the pictures of bad rows too.
    """

    index: SampleIndex
    rows: list[tuple[int, str]]
    shown: ShownPictures

    def finding(self, position: int, level: str, kind: str, message: str) -> Finding:
        """A finding about a sample of the index."""
        number, place = self.rows[position]
        return Finding(level, kind, message, number, place, self.index[position].sample_id, "conversations")


@dataclass
class RowChecker:
    """Reads rows one after the other into an index; what is found goes to the report."""

    path: Path
    pictures: PictureFolder
    report: Report
    rows: list[tuple[int, str]] = field(default_factory=list)
    shown: ShownPictures = field(default_factory=ShownPictures)
    num_rows: int = 0

    def read(self) -> CheckedRows:
        """Check the whole file, as far as it is JSON."""
        index = index_in_memory(self._fill)
        self.report.facts |= {
            "rows": self.num_rows,
            "usable rows": len(self.rows),
            "pictures": len(self.shown.first),
        }
        return CheckedRows(index, self.rows, self.shown)

    def _fill(self, writer: IndexWriter) -> dict[str, object]:
        problems, notes = CollectedProblems(self.path), RowNotes()
        reader, broken = RowReader(self.pictures, problems), []
        try:
            for row in stream_rows(self.path, WANTED, broken=broken):
                self._check(row, reader, notes, writer)
                for finding in problems.take(row, key="id"):
                    self.report.add(finding)
        except DataError as error:
            self.report.add(file_finding(error, self.path))
            if self.num_rows:
                found = f"what follows row {self.num_rows - 1} could not be read and is not checked"
                self.report.add(Finding(NOTE, "rows not checked", found))
        for finding in line_findings(broken):
            self.report.add(finding)
        self.num_rows += len(broken)
        return {}

    def _check(self, row: Row, reader: RowReader, notes: RowNotes, writer: IndexWriter) -> None:
        """One row: into the index if it is good; its pictures are looked at in any case."""
        self.num_rows += 1
        found = reader.read(row)
        if found is None:
            paths = named_pictures(row, self.pictures)
        else:
            sample, names = found
            writer.add(sample, names)
            self.rows.append((row.number, row.place))
            paths = list(sample.images)
            for note in notes.of(row, sample):
                place = (row.number, row.place, row.value.get("id"))  # type: ignore[union-attr]
                self.report.add(Finding(NOTE, note.kind, note.message, *place, note.field))
        for path in dict.fromkeys(paths):
            self.shown.add(path, row, row.value.get("id"))  # type: ignore[union-attr]


def named_pictures(row: Row, pictures: PictureFolder) -> list[str]:
    """Paths of the pictures that a bad row names and that are there."""
    if not isinstance(row.value, dict) or row.value.get("image") is None:
        return []
    names, _ = image_names(row.value["image"])
    return [path for path, _ in map(pictures.find, names) if path is not None]


def check_shown_pictures(rows: CheckedRows, report: Report, *, mode: str, max_pixels: int) -> None:
    """Look at every distinct picture; `mode` as for `choose_mode`."""
    mode = choose_mode(mode, len(rows.shown.first))
    report.facts["pictures seen"] = SEEN[mode]
    if mode != "none":
        with kept_look(report.file, decode=mode == "full", max_pixels=max_pixels) as look:
            rows.shown.check(look, report)


def read_checked(data_path: str | Path, image_folder: str | Path | None, *, mode: str) -> SampleIndex:
    """The samples of a run, rows and pictures checked; `mode` as for `choose_mode`.

    `DataError` with the report of all errors, pictures of the good rows and of the bad ones included.
    """
    try:
        samples = read_samples(data_path, image_folder)
        check_pictures(samples, mode, data=Path(data_path))
        return samples
    except DataError:
        report = Report(Path(data_path))
        rows = RowChecker(report.file, PictureFolder(image_folder), report).read()
        check_shown_pictures(rows, report, mode=mode, max_pixels=MAX_PIXELS)
        if not report.count(ERROR):  # mended meanwhile, or the file changed while it was read
            raise
        raise DataError(report.as_text(levels=(ERROR,))) from None


def position_of(rows: CheckedRows, wanted: int | None) -> int | None:
    """The sample to show: that of a row, else the first; None where there is none.

    `UsageError` for a row that is not good or not there.
    """
    if wanted is None:
        return 0 if rows.rows else None
    position = next((place for place, (number, _) in enumerate(rows.rows) if number == wanted), None)
    if position is None:
        raise UsageError(f"--show_row {wanted}: there is no such row without an error; name another one.")
    return position


def marked_text(sample: Sample, template: Template) -> str:
    """The text that a sample trains on, what is learned between ⟦ and ⟧.

    `UsageError` if the template does not take it.
    """
    turns = [
        (role, text and pictures_to_front(text, template.version) if sample.images else text)
        for role, text in sample.turns
    ]
    rendered = render_for_training(template, turns)
    edges = [0, *chain.from_iterable(rendered.answer_spans), len(rendered.text)]
    return "".join(pieces_between(rendered.text, edges))


def pieces_between(text: str, edges: list[int]) -> Iterator[str]:
    """The text with a mark at each inner edge: every second one ends a span."""
    for number, (start, end) in enumerate(pairwise(edges)):
        if number:
            yield SPAN_START if number % 2 else SPAN_END
        yield text[start:end]


def show_text(rows: CheckedRows, report: Report, template: Template, wanted: int | None) -> None:
    """Put a sample as text into the report, without a tokenizer."""
    position = position_of(rows, wanted)
    if position is None:
        return
    try:
        text = marked_text(rows.index[position], template)
    except UsageError as error:
        report.add(rows.finding(position, ERROR, "template", str(error)))
        return
    title = f"{rows.rows[position][1]} as text, what is learned between {SPAN_START} and {SPAN_END}:"
    report.samples.append((title, text))
