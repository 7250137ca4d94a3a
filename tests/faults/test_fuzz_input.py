"""Arbitrary rows, files and picture bytes: used, or refused by a message of our own, never by a traceback.

A small number of examples in every run, many under `-m slow`.
"""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.errors import UsageError
from llava.eval import check_questions
from llava.eval.questions import read_questions
from llava.findings import ERROR, Report
from llava.images import load_image
from llava.picture_checks import look_at
from llava.train import check_data
from llava.train.samples import read_samples
from tests.faults.conftest import REFUSED, FaultLog
from tests.faults.test_bad_pictures import encoded, frames, turned

FEW, MANY = 300, 5000
QUICK = settings(
    max_examples=FEW,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
THOROUGH = settings(QUICK, max_examples=MANY, derandomize=False)
BUDGETS = pytest.mark.parametrize("budget", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)])

TEXTS = st.text(max_size=12) | st.sampled_from(["<image>", "<image>\nWho?", "", " ", "</s>", "a\ud83d", "\0"])
NAMES = st.sampled_from(["a.png", "sub/b.png", "../c.png", "/etc/hostname", "loop.png", "sub", "file:x", ""])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)
ROLES = st.sampled_from(["human", "gpt", "human", "gpt", "system", "Human", ""])
TURNS = st.fixed_dictionaries({}, optional={"from": ROLES | ANYTHING, "value": TEXTS | ANYTHING})
PAIRS = st.lists(
    st.tuples(TEXTS, TEXTS).map(
        lambda pair: [{"from": "human", "value": pair[0]}, {"from": "gpt", "value": pair[1]}]
    ),
    max_size=3,
).map(lambda pairs: [turn for pair in pairs for turn in pair])
IMAGES = NAMES | st.lists(NAMES, max_size=2) | ANYTHING
GOOD_ROW = {
    "id": "a",
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nWer?"}, {"from": "gpt", "value": "Mü"}],
}
ROW_FIELDS = {"id": TEXTS | ANYTHING, "image": IMAGES, "conversations": PAIRS | st.lists(TURNS) | ANYTHING}
GOOD_QUESTION = {"question_id": 1, "image": "a.png", "text": "Who?", "category": "name"}
QUESTION_FIELDS = {
    "question_id": st.integers(0, 3) | TEXTS | ANYTHING,
    "image": IMAGES,
    "text": TEXTS | ANYTHING,
    "category": TEXTS | ANYTHING,
}


def rows_like(good: dict, fields: dict[str, st.SearchStrategy]) -> st.SearchStrategy[list]:
    """Up to three rows: good ones, good ones with one field changed, wild ones, and no rows at all."""
    changes = [
        st.just({}),
        *(values.map(lambda value, key=key: {key: value}) for key, values in fields.items()),
    ]
    near = st.one_of(changes).map(lambda change: good | change)
    wild = st.fixed_dictionaries({}, optional=fields) | ANYTHING
    return st.lists(near, min_size=1, max_size=2) | st.lists(near | wild, max_size=3)


EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, a link that leads to itself, and room for the data file."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "../c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "loop.png").symlink_to("loop.png")
    return tmp_path


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes with pieces cut out and others put in, at places that are shares of the length."""
    for place, length, piece in edits:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + length :]
    return content


def refusal(use: Callable[[], object], file: str) -> str | None:
    """Our own message that something cannot be used, None if it can; other errors come through."""
    message = None
    try:
        use()
    except UsageError as error:
        message = str(error)
    assert message is None or file in message
    return message


def report_of(program: object, *flags: str) -> Report:
    """What a checking program finds, also as text and as JSON."""
    options = program.parser().parse(flags)  # type: ignore[attr-defined]
    report = program.report_of(options)  # type: ignore[attr-defined]
    text, value = report.as_text(), json.loads(report.as_json())
    assert text.splitlines()
    assert sum(kind["count"] for kind in value["kinds"]) == value["errors"] + value["notes"]
    return report


def check_training_file(folder: Path) -> bool:
    """Both readers on one file: check_data has an error exactly where a training refuses it."""
    flags = ["--data_path", str(folder / "train.json"), "--image_folder", str(folder / "images")]
    report = report_of(check_data, *flags, "--check_pictures", "none")
    taken = refusal(lambda: read_samples(folder / "train.json", folder / "images"), "train.json") is None
    assert (report.count(ERROR) == 0) == taken, report.as_text()
    return taken


@BUDGETS
def test_rows(folder: Path, budget: settings, fault_log: FaultLog) -> None:
    outcomes = []

    @budget
    @given(rows_like(GOOD_ROW, ROW_FIELDS), st.booleans())
    def run(rows: list, lines: bool) -> None:
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        (folder / "train.json").write_text(text, encoding="utf-8")
        outcomes.append(check_training_file(folder))

    run()
    assert {True, False} == set(outcomes), "rows of both kinds must be drawn"
    fault_log("random rows", "read, or refused by training and check_data alike", REFUSED, len(outcomes))


@BUDGETS
def test_bytes_of_a_file(folder: Path, budget: settings, fault_log: FaultLog) -> None:
    array = json.dumps([GOOD_ROW] * 2, ensure_ascii=False, indent=1).encode()
    lines = b"\n".join([json.dumps(GOOD_ROW, ensure_ascii=False).encode()] * 3)
    outcomes = []

    @budget
    @given(st.sampled_from([array, lines]), EDITS)
    def run(content: bytes, edits: list) -> None:
        (folder / "train.json").write_bytes(edited(content, edits))
        outcomes.append(check_training_file(folder))

    run()
    assert False in outcomes, "some edits must do harm"
    fault_log("edited bytes of a data file", "read, or refused by both alike", REFUSED, len(outcomes))


@BUDGETS
def test_question_rows(folder: Path, budget: settings, fault_log: FaultLog) -> None:
    outcomes = []

    @budget
    @given(rows_like(GOOD_QUESTION, QUESTION_FIELDS), st.booleans())
    def run(rows: list, lines: bool) -> None:
        file = folder / "q.jsonl"
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        file.write_text(text, encoding="utf-8")
        flags = ["--question-file", str(file), "--image-folder", str(folder / "images")]
        report = report_of(check_questions, *flags, "--check-pictures", "none")
        outcomes.append(refusal(lambda: read_questions(file, folder / "images"), "q.jsonl") is None)
        assert (report.count(ERROR) == 0) == outcomes[-1], report.as_text()

    run()
    assert {True, False} == set(outcomes), "rows of both kinds must be drawn"
    fault_log("random questions", "read, or refused by both programs alike", REFUSED, len(outcomes))


PICTURES = [
    encoded(),
    encoded("RGBA"),
    encoded("P"),
    turned(),
    encoded("CMYK", "JPEG"),
    encoded(kind="WEBP"),
    encoded(kind="BMP"),
    encoded(kind="TIFF"),
    frames("GIF"),
    frames("PNG"),
    frames("TIFF"),
    frames("WEBP"),
]


@BUDGETS
def test_bytes_of_pictures(tmp_path: Path, budget: settings, fault_log: FaultLog) -> None:
    path, outcomes = tmp_path / "picture.png", []

    @budget
    @given(st.sampled_from(PICTURES), EDITS)
    def run(content: bytes, edits: list) -> None:
        path.write_bytes(edited(content, edits))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            look = look_at(str(path), decode=True)
            told = refusal(lambda: load_image(path).resize((8, 8)), "picture.png")
        assert (look.problem is None) == (told is None)
        outcomes.append(told is None)

    run()
    assert {True, False} == set(outcomes), "pictures of both kinds must be drawn"
    fault_log("edited bytes of a picture", "opened, or refused by name", REFUSED, len(outcomes))


def test_pictures_begin_whole() -> None:
    """What is edited above opens without an edit."""
    for content in PICTURES:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
