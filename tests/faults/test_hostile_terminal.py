"""Text of files, models and servers on a terminal: it shows what it is, and steers nothing."""

import csv
import io
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from llava import terminal
from llava.errors import UsageError, exit_on_usage_error
from llava.eval import model_vqa_loader, score_personal
from llava.eval.sheet import write_sheet
from llava.eval.text_tables import Table, comma_separated
from tests.e2e.conftest import ROOT
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.payloads import STEERING

SAFE = set("\n\t")


def steers(text: str) -> list[str]:
    """Characters of a text that a terminal would act on or hide."""
    return [letter for letter in text if letter not in SAFE and terminal.is_hidden(letter)]


@pytest.fixture(autouse=True)
def records_as_before() -> object:
    """Commands change how log records are made; other tests keep theirs."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_what_is_hidden_becomes_visible(fault_log: FaultLog) -> None:
    for text in STEERING:
        assert steers(text), "a text that steers nothing would prove nothing"
        shown = terminal.visible(text)
        assert not steers(shown)
        assert terminal.visible(shown) == shown
    assert terminal.visible("\x1b[31m\u202e") == r"\x1b[31m\u202e"
    assert terminal.visible("e" + "\u0301" * 9) == "e" + "\u0301" * 8 + "\\u0301"
    fault_log("control characters and turned directions", "shown as escapes", SURVIVED, len(STEERING))


ORDINARY = ("plain", "ä ß 漢字 العربية עברית हिन्दी ไทย", "a\nb\tc", "👨‍👩‍👧 ❤️", "می‌خواهم", "é")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert terminal.visible(text) == text


def test_errors_of_commands(capsys: pytest.CaptureFixture[str], fault_log: FaultLog) -> None:
    text = "".join(STEERING)

    @exit_on_usage_error
    def main() -> None:
        raise UsageError(f"the picture {text} is damaged\nby line")

    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "\\x1b[2J" in told
    assert not steers(told)
    assert told.count("\n") == 2
    fault_log("the same in an error's message", "shown as escapes", SURVIVED, len(STEERING))


@pytest.mark.parametrize("handler", ["of last resort", "of the root", "of a later library"])
def test_logs_of_commands(handler: str, capsys: pytest.CaptureFixture[str], fault_log: FaultLog) -> None:
    text = "".join(STEERING)
    logger = logging.getLogger("llava.test_hostile")
    logger.propagate = False
    stream = io.StringIO()

    @exit_on_usage_error
    def main() -> None:
        if handler != "of last resort":
            logger.addHandler(logging.StreamHandler(stream))
        logger.warning("%s: %s", "row", text)
        logger.error(text)

    main()
    logger.handlers.clear()
    told = stream.getvalue() or capsys.readouterr().err
    assert "\\x1b[2J" in told
    assert not steers(told)
    fault_log(f"the same in a log, by a handler {handler}", "shown as escapes", SURVIVED, len(STEERING))


def test_a_question_file_cannot_forge_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    """A whole command: names of the file, of fields and of pictures."""
    folder = tmp_path / "images\x1b[2J"
    folder.mkdir()
    file = tmp_path / "questions\r\x1b]0;x\x07.jsonl"
    file.write_text(
        '{"question_id": "\\u001b[2J", "image": "\\u202e.png", "text": "\\u001b[31m"}\n'
        '{"question_id": 2, "te\\u001b[1mxt": "?"}\n',
        encoding="utf-8",
    )
    flags = ["--model-path", "none", "--question-file", str(file), "--image-folder", str(folder)]
    with pytest.raises(SystemExit):
        model_vqa_loader.main(flags)
    told = capsys.readouterr().err
    assert "2 problems" in told
    assert not steers(told)
    flags = ["--truth", str(file), "--answers", str(file), "--out", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit):
        score_personal.main(flags)
    assert not steers(capsys.readouterr().err)
    fault_log("a question file whose name, ids and pictures steer a terminal", "as escapes", SURVIVED, 2)


ANSWER = "import sys\nfrom llava.terminal import say_answer\nsay_answer(sys.argv[1] + '\\n')\n"


def test_an_answer_is_exact_in_a_pipe_and_visible_on_a_terminal(fault_log: FaultLog) -> None:
    text = "Mira \x1b[31m\u202e end"
    command = [sys.executable, "-c", ANSWER, text]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert piped.decode("utf-8") == text + "\n"
    main, other = pty.openpty()
    subprocess.run(command, cwd=ROOT, stdout=other, check=True)
    os.close(other)
    shown = os.read(main, 4096).decode("utf-8").replace("\r\n", "\n")
    os.close(main)
    assert shown == terminal.visible(text) + "\n"
    fault_log("an answer that steers a terminal", "exact in a file, escapes on a terminal", SURVIVED)


def test_a_terminal_without_unicode_gets_escapes() -> None:
    command = [sys.executable, "-c", "from llava.terminal import say, note\nsay('é漢\\n')\nnote('é漢\\n')\n"]
    environment = dict(os.environ, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout == done.stderr == b"\\xe9\\u6f22\n"


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.invalid")', "\t=1")


def test_sheets_hold_texts_and_no_formulas(tmp_path: Path, fault_log: FaultLog) -> None:
    """A sheet says of each cell what it is, a CSV file cannot: a formula gets an apostrophe before it."""
    openpyxl = pytest.importorskip("openpyxl", reason="no openpyxl: Excel files are not tried")
    write_sheet([["prediction"], *([text] for text in (*FORMULAS, *STEERING))], tmp_path / "sheet.xlsx")
    cells = [row[0] for row in openpyxl.load_workbook(tmp_path / "sheet.xlsx").active.iter_rows(min_row=2)]
    assert [cell.value for cell in cells[:3]] == list(FORMULAS[:3])
    assert {cell.data_type for cell in cells if cell.value is not None} <= {"s", "inlineStr"}
    fault_log("a formula as a prediction in an Excel file", "stays a text", REFUSED, len(FORMULAS))
    text = comma_separated(Table(("checkpoint",), tuple((cell,) for cell in FORMULAS)))
    found = [row[0] for row in csv.reader(io.StringIO(text))][1:]
    numbers = {"+1", "-1"}
    assert found == [cell if cell in numbers else f"'{cell}" for cell in FORMULAS]
    fault_log("a formula as a name in a CSV file", "stays a text", REFUSED, len(FORMULAS))


def test_tables_are_written_in_one_place() -> None:
    """So that every export is escaped."""
    sources = [(file, file.read_text(encoding="utf-8")) for file in (ROOT / "llava").rglob("*.py")]
    writers = [file.name for file, text in sources if "csv.writer" in text or "DictWriter" in text]
    assert writers == ["text_tables.py"]
