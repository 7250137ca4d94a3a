"""Malformed data files: one message with file, record, field and remedy, from a training and from check_data.

The model that the training names does not exist: what is wrong with the data is told before that.
"""

import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.index import write_pictures, write_rows
from llava.conversation import training_template
from llava.errors import UsageError
from llava.train import check_data
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples
from llava.train.samples import read_samples
from llava.train.train import train
from tests.faults.checking import UNKNOWN_KINDS, Check, as_lines, check, errors_of, notes_of
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.parity.golden import DATA, golden_folder, golden_tokenizer
from tests.unit.train.test_samples import (
    ANSWER,
    FILES,
    QUESTION,
    ROWS,
    TEXT_QUESTION,
    folder,
    row,
    turns,
)

__all__ = ["check", "folder"]

TOLD = "told by the training and by check_data"
NOBODY = 65534


def flags_of(folder: Path, name: str = "train.json") -> list[str]:
    """The data flags that a training and check_data share."""
    return ["--data_path", str(folder / name), "--image_folder", str(folder / "images")]


def refusal_of_training(folder: Path, capsys: pytest.CaptureFixture[str], name: str = "train.json") -> str:
    """What the training command says before it ends with code 2."""
    model = ["--model_name_or_path", str(folder / "no_model"), "--output_dir", str(folder / "out")]
    with pytest.raises(SystemExit) as ended:
        train([*flags_of(folder, name), *model])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "no_model" not in told
    assert not (folder / "out").exists()
    return told


@pytest.mark.parametrize(("content", "parts"), FILES.values(), ids=FILES)
def test_a_malformed_file(
    folder: Path,
    content: str | bytes,
    parts: list[str],
    check: Check,
    capsys: pytest.CaptureFixture[str],
    fault_log: FaultLog,
) -> None:
    (folder / "train.json").write_bytes(content.encode() if isinstance(content, str) else content)
    told = refusal_of_training(folder, capsys)
    code, report, text = check(check_data, *flags_of(folder))
    assert code == 2
    assert report["errors"] in (1, 2)
    for part in ["train.json", *parts]:
        assert part in told
        assert part in text
    fault_log("malformed data file", TOLD, REFUSED)


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize(("value", "parts"), ROWS.values(), ids=ROWS)
def test_a_malformed_row(
    folder: Path,
    value: object,
    parts: list[str],
    form: str,
    check: Check,
    capsys: pytest.CaptureFixture[str],
    fault_log: FaultLog,
) -> None:
    rows, place = [row(), value, row(id="last")], "row 1" if form == "array" else "line 2"
    text = json.dumps(rows) if form == "array" else "\n".join(map(json.dumps, rows))
    (folder / "train.json").write_text(text, encoding="utf-8")
    parts = [part.replace("row 1", place) for part in parts]
    told = refusal_of_training(folder, capsys)
    code, report, shown = check(check_data, *flags_of(folder))
    assert code == 2
    (error,) = errors_of(report)
    assert (error["row"], error["place"]) == (1, place)
    assert report["facts"]["rows"] == 3
    assert report["facts"]["usable rows"] == 2, "the rows around it are good"
    if isinstance(value, dict):
        assert error["field"], "the field is named"
        assert error["kind"] not in UNKNOWN_KINDS
        if isinstance(value.get("id"), str):
            assert error["id"] == value["id"]
    for part in ["train.json", place, *parts]:
        assert part in told
        assert part in shown
    fault_log(f"malformed row ({form})", TOLD, REFUSED)


MARKED = {"from": "human", "value": "Who wrote </s> here?"}
TWICE = {"from": "human", "value": "<image> <image> Who?"}
EMPTY = {"from": "gpt", "value": " "}
USABLE = {
    "byte-order mark": (b"\xef\xbb\xbf" + json.dumps([row()]).encode(), set()),
    "array in one line per row": (json.dumps([row()], indent=0).encode(), set()),
    "line ends of Windows": (as_lines(row(), row(id=2), end="\r\n"), {"ids of two types"}),
    "blank lines": (b"\n\n" + as_lines(row(), row(id="b"), end="\n\n \n"), set()),
    "id missing": (as_lines(row(id=...), row(id=None)), set()),
    "id repeated": (as_lines(row(), row()), {"id repeated"}),
    "id as text and number": (as_lines(row(id="7"), row(id=7)), {"id repeated", "ids of two types"}),
    "first turn from gpt": (as_lines(turns(ANSWER, TEXT_QUESTION, ANSWER)), {"first turn from gpt"}),
    "one answer empty": (as_lines(turns(TEXT_QUESTION, EMPTY, TEXT_QUESTION, ANSWER)), {"answer empty"}),
    "a question empty": (as_lines(turns({"from": "human", "value": ""}, ANSWER)), {"question empty"}),
    "two <image> in a turn": (as_lines(row(conversations=[TWICE, ANSWER])), {"several <image> in a turn"}),
    "mark of a tokenizer": (as_lines(turns(MARKED, ANSWER)), {"special token in a text"}),
    "unknown keys": (as_lines(row(source="mine", weight=[1])), set()),
}


@pytest.mark.parametrize(("content", "kinds"), USABLE.values(), ids=USABLE)
def test_an_odd_file_that_can_be_used(
    folder: Path, content: bytes, kinds: set[str], check: Check, fault_log: FaultLog
) -> None:
    (folder / "train.json").write_bytes(content)
    code, report, shown = check(check_data, *flags_of(folder))
    assert code == 0
    assert notes_of(report) == kinds
    assert all(f"note: {kind} (1)" in shown for kind in kinds)
    assert "the file can be used" in shown
    assert "⟦ Mira</s>⟧" in shown, "the first sample and what is learned of it"
    samples = read_samples(folder / "train.json", folder / "images")
    assert len(samples) == report["facts"]["usable rows"]
    fault_log("odd data file", "read, with a note where something is done about it", SURVIVED)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("train.jsno", ["does not exist", "did you mean"]), ("images", ["is a folder"])],
)
def test_a_path_that_is_no_file(
    folder: Path,
    name: str,
    parts: list[str],
    check: Check,
    capsys: pytest.CaptureFixture[str],
    fault_log: FaultLog,
) -> None:
    (folder / "train.json").write_bytes(as_lines(row()))
    told = refusal_of_training(folder, capsys, name)
    code, _, shown = check(check_data, *flags_of(folder, name))
    assert code == 2
    for part in [name, *parts]:
        assert part in told
        assert part in shown
    fault_log("data path that is no file", TOLD, REFUSED)


def test_all_problems_of_all_kinds_at_once(
    folder: Path, check: Check, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    """Rows, pictures of good and of bad rows, and lines that are no JSON, in one report."""
    for name in ("torn.png", "page.png"):
        (folder / "images" / name).write_bytes(b"<html>")
    rows = [row(), row(id="t", image="torn.png"), row(image="page.png", id=[3]), row(image="../outside.png")]
    rows += [row(id=f"m{number}", image=f"absent {number}.png") for number in range(30)]
    (folder / "train.json").write_bytes(as_lines(*rows) + b"\n{broken}\n" + as_lines(row(), row()))
    told = refusal_of_training(folder, capsys)
    code, report, shown = check(check_data, *flags_of(folder), "--show", "5")
    assert code == 2
    counts = {kind["kind"]: kind["count"] for kind in report["kinds"]}
    assert counts == {
        "id": 1,
        "picture outside the folder": 1,
        "picture missing": 30,
        "id repeated": 2,
        "line is not JSON": 1,
        "picture of another kind": 2,
    }
    assert report["errors"] == 35
    for kind in report["kinds"]:
        assert (f"{kind['level']}: {kind['kind']} ({kind['count']})" in told) == (kind["level"] == "error")
    assert report["facts"]["rows"] == 37
    assert "and 25 more" in shown
    assert shown.count("is not in") == 5
    assert "line 3 (id [3]), image: " in shown, "the picture of a row that is refused for its id"
    fault_log("several kinds at once", "all told in one report", REFUSED, 35)


@pytest.fixture
def another_user() -> Iterator[None]:
    """The rights of a user who owns nothing."""
    "".encode("utf-8-sig")  # is loaded, where another user may not read Python's own files
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that others may read, with a file and a folder that they may not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "closed" / "images").mkdir(parents=True)
        for file in ("open.json", "secret.json", "closed/train.json"):
            (folder / file).write_text(json.dumps([row()]), encoding="utf-8")
        (folder / "secret.json").chmod(0o600)
        (folder / "closed").chmod(0o700)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("data", "images"),
    [
        ("secret.json", "."),
        ("closed/train.json", "."),
        ("open.json", "closed"),
        ("open.json", "closed/images"),
    ],
)
def test_what_may_not_be_read(
    data: str, images: str, shared_folder: Path, another_user: None, fault_log: FaultLog
) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(.*Permission denied"):
        read_samples(shared_folder / data, shared_folder / images)
    fault_log("file or folder without permission", "told by name", REFUSED)


MODEL = golden_folder("llava-v1.5-tiny")
LONG_QUESTION = {"from": "human", "value": "Why? " * 60}
LONG_ANSWER = {"from": "gpt", "value": "So. " * 30}
LENGTHS = {
    "picture that does not fit": (
        [turns(TEXT_QUESTION, ANSWER), row(conversations=[LONG_QUESTION, ANSWER, QUESTION, ANSWER])],
        (2, "picture does not fit", "tokens up to its last picture, 100 are kept; raise --model_max_length"),
    ),
    "second answer torn": (
        [turns(TEXT_QUESTION, ANSWER, TEXT_QUESTION, LONG_ANSWER, TEXT_QUESTION, ANSWER)],
        (0, "cut by --model_max_length", "of 3 answers 1 stay whole, number 2 loses"),
    ),
    "no target left": (
        [turns(TEXT_QUESTION, ANSWER), turns(LONG_QUESTION, ANSWER)],
        (0, "no target left", "no token of an answer is left within 100 tokens"),
    ),
    "no target left in any row": (
        [turns(LONG_QUESTION, ANSWER)],
        (2, "no target left", "no token of an answer is left within 100 tokens"),
    ),
}


@pytest.mark.parametrize(("rows", "wanted"), LENGTHS.values(), ids=LENGTHS)
def test_rows_that_are_too_long(
    folder: Path, rows: list, wanted: tuple, check: Check, fault_log: FaultLog
) -> None:
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = ["--model_name_or_path", str(MODEL), "--model_max_length", "100"]
    code, report, shown = check(check_data, *flags_of(folder), *flags)
    code_wanted, kind, part = wanted
    assert code == code_wanted
    assert [found["kind"] for found in report["kinds"] if found["kind"] != "id repeated"] == [kind]
    assert part in shown
    assert report["facts"]["rows cut"] == 1
    (title,) = report["samples"]
    assert "decoded, targets between" in title
    assert "Mira" in report["samples"][title].split("⟦")[1]
    encoding = Encoding(training_template("v1"), golden_tokenizer("nonlegacy"), 16, 100)
    dataset = ConversationDataset(read_samples(folder / "train.json", folder / "images"), encoding)
    if code:
        with pytest.raises(UsageError):
            check_long_samples(dataset)
    else:
        check_long_samples(dataset)
    fault_log("row longer than the length", "told with what it loses; as the training decides", REFUSED)


def test_a_conversation_under_the_template_of_captions(
    folder: Path, check: Check, fault_log: FaultLog
) -> None:
    """Every row is told, and the training refuses it before its first step, not when it draws the row."""
    rows = [turns(TEXT_QUESTION, ANSWER), turns(TEXT_QUESTION, ANSWER, TEXT_QUESTION, ANSWER)]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = ["--model_name_or_path", str(MODEL), "--version", "plain"]
    code, report, _ = check(check_data, *flags_of(folder), *flags)
    assert code == 2
    (error,) = errors_of(report)
    assert error["row"] == 1
    assert "one question and one caption" in error["message"]
    encoding = Encoding(training_template("plain"), golden_tokenizer("nonlegacy"), 16, 2048)
    dataset = ConversationDataset(read_samples(folder / "train.json", folder / "images"), encoding)
    with pytest.raises(UsageError, match=r"row 1 \(id a7\)"):
        check_long_samples(dataset)
    fault_log("several turns under the template plain", "told before the first step", REFUSED)


def test_a_recorded_file_of_the_original_has_no_error(check: Check) -> None:
    flags = ["--data_path", str(DATA / "data" / "traj8.json"), "--image_folder", str(DATA)]
    code, report, _ = check(check_data, *flags)
    assert (code, report["errors"]) == (0, 0)


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_a_minute(tmp_path: Path) -> None:
    """Without opening pictures, on one core: worst seen 5 seconds of a core, 11 on a busy machine."""
    (tmp_path / "images").mkdir()
    write_pictures(tmp_path / "images", 50_000)
    write_rows(tmp_path / "train.json", 100_000, 50_000, random.Random(0))
    began = time.process_time()
    with pytest.raises(SystemExit) as ended:
        check_data.main([*flags_of(tmp_path), "--check_pictures", "none"])
    assert ended.value.code == 0
    assert time.process_time() - began < 60
