"""Example questions for the report: the picture, what is true, and what every model said."""

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import UsageError
from llava.eval.report_data import Configuration, Run
from llava.images import load_image
from llava.records import PictureFolder

PICTURE_SIDE = 144  # pixels; larger pictures are made smaller, so that the report stays light
GOOD_SPLITS = ("name_reworded", "fact_image", "lookalike", "stranger", "is_no_lookalike", "name")
BAD_SPLITS = (
    "lookalike", "stranger", "is_no_lookalike", "name_reworded", "fact_image_reworded", "is_no_taught",
    "name", "fact_reversed", "scene_colour", "attribute", "scene_caption", "fact_text",
)  # fmt: skip
PER_GROUP = 6
SHOWN_CHARACTERS = 600


@dataclass(frozen=True)
class Example:
    """One question; `answers` are (label, answer, right) of every model shown; `picture` a data URI."""

    split: str
    question: str
    truth: str
    picture: str | None
    answers: tuple[tuple[str, str, bool], ...]


def read_lines(path: Path) -> list[dict]:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def data_uri(pictures: PictureFolder, name: object) -> str | None:
    """A picture as text for a page, at most `PICTURE_SIDE` pixels wide and high.

    None when there is none, when it leads out of its folder, or when it cannot be used.
    """
    path = pictures.find(name)[0] if isinstance(name, str) else None
    if path is None:
        return None
    try:
        small = load_image(path)
    except UsageError:
        return None
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    target = io.BytesIO()
    small.save(target, format="WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def runs_to_show(configurations: Sequence[Configuration], data: Path) -> list[tuple[str, Run]]:
    """Of every configuration the run that answered this data's questions. `UsageError` when none did."""
    truth = data / "truth.jsonl"
    if not truth.is_file():
        raise UsageError(f"--data {data} holds no truth.jsonl; name the folder that make_people wrote.")
    wanted = hashlib.sha256(truth.read_bytes()).hexdigest()
    found = [
        (configuration.label, run)
        for configuration in configurations
        for run in configuration.runs
        if run.truth == wanted
    ]
    if not found:
        raise UsageError(f"--data {data}: no run of the report answered its questions; leave --data out.")
    return found


def outcomes_of(run: Run) -> dict[str, tuple[str, bool]]:
    """Question id -> (split, right)."""
    outcomes: Mapping[str, Sequence[Sequence]] = run.scores["outcomes"]  # type: ignore[assignment]
    return {str(name): (split, bool(right)) for split, rows in outcomes.items() for name, _, right in rows}


def examples(configurations: Sequence[Configuration], data: Path) -> dict[str, list[Example]]:
    """`good`: all taught models are right; `bad`: at least one is wrong. Fixed by hashes, no favourites."""
    shown = runs_to_show(configurations, data)
    questions = {
        str(row["question_id"]): row
        for file in sorted((data / "questions").glob("*.jsonl"))
        for row in read_lines(file)
    }
    truths = {str(row["question_id"]): str(row["answer"]) for row in read_lines(data / "truth.jsonl")}
    said = [(label, outcomes_of(run), answers_of(run)) for label, run in shown]
    taught = [outcomes_of(run) for _, run in shown if run.method != "base"] or [said[0][1]]
    verdicts = {
        name: (split, all(other[name][1] for other in taught))
        for name, (split, _) in taught[0].items()
        if name in questions and all(name in other for other in taught)
    }

    pictures = PictureFolder(data / "images", flag="--data")

    def make(name: str) -> Example:
        row = questions[name]
        answers = tuple(
            (label, cut(answers.get(name, "")), outcomes[name][1])
            for label, outcomes, answers in said
            if name in outcomes
        )
        picture = data_uri(pictures, row.get("image"))
        return Example(verdicts[name][0], cut(row["text"]), cut(truths[name]), picture, answers)

    groups = {"good": (GOOD_SPLITS, True), "bad": (BAD_SPLITS, False)}
    return {
        group: [make(name) for name in choose(verdicts, splits, right=right)]
        for group, (splits, right) in groups.items()
    }


def cut(text: object) -> str:
    """The start of a text; a page is no place for a megabyte."""
    text = str(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def choose(
    verdicts: Mapping[str, tuple[str, bool]], splits: Iterable[str], *, right: bool, count: int = PER_GROUP
) -> list[str]:
    """One question per split in this order, until there are enough."""
    found = []
    for split in splits:
        names = [name for name, verdict in verdicts.items() if verdict == (split, right)]
        if names and len(found) < count:
            found.append(min(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest()))
    return found


def answers_of(run: Run) -> dict[str, str]:
    """Question id -> what the model said, from the run's answer files."""
    return {
        str(row["question_id"]): str(row["text"])
        for file in sorted((run.folder / "answers").glob("*.jsonl"))
        for row in read_lines(file)
    }
