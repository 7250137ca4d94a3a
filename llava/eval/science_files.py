"""ScienceQA's own files: problems.json (id -> problem) and pid_splits.json (split -> ids)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llava.eval.metrics.pairing import compare_ids, tell
from llava.records import DataError, Problems, kind_of, near_name, read_object, shorten

TEXTS = ("question", "hint", "lecture", "solution")


@dataclass(frozen=True)
class ScienceProblem:
    """One problem; `answer` is the place of the right choice, `image` a file name or None."""

    problem_id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str
    caption: str
    lecture: str
    solution: str
    image: str | None


def read_problems(folder: Path) -> dict[str, ScienceProblem]:
    """All problems by id. `DataError` lists what is wrong with problems.json."""
    path = folder / "problems.json"
    problems = Problems(path)
    rows = read_object(path, "problems.json of ScienceQA (an object: id to problem)")
    found = {name: problem_of(name, row, problems) for name, row in rows.items()}
    problems.raise_any()
    return {name: problem for name, problem in found.items() if problem is not None}


def problem_of(name: str, row: object, problems: Problems) -> ScienceProblem | None:
    """One problem, or None when something is wrong with it."""
    before, place = len(problems.messages), f"problem {name}"
    if not isinstance(row, dict):
        problems.add(place, f"found {kind_of(row)}; an object was wanted")
        return None
    choices, answer, image = row.get("choices"), row.get("answer"), row.get("image")
    texts = {key: row.get(key, "") for key in (*TEXTS, "caption")}
    for key, text in texts.items():
        if not isinstance(text, str):
            problems.add(f"{place}, {key}", f"found {kind_of(text)} ({shorten(text)}); a text was wanted")
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
        problems.add(f"{place}, choices", f"found {shorten(choices)}; a list of texts was wanted")
    elif type(answer) is not int or not 0 <= answer < len(choices):
        wanted = f"the place of a choice, 0 to {len(choices) - 1}, was wanted"
        problems.add(f"{place}, answer", f"found {shorten(answer)}; {wanted}")
    if image is not None and not isinstance(image, str):
        problems.add(f"{place}, image", f"found {kind_of(image)} ({shorten(image)}); a file name was wanted")
    if len(problems.messages) > before:
        return None
    return ScienceProblem(name, choices=tuple(choices), answer=answer, image=image, **texts)  # type: ignore[arg-type]


def read_split(folder: Path, split: str, problems: Mapping[str, ScienceProblem]) -> list[ScienceProblem]:
    """The problems of a split, in its order. `DataError` for a split or a problem that is not there."""
    path = folder / "pid_splits.json"
    splits = read_object(path, "pid_splits.json of ScienceQA (an object: split to ids)")
    if split not in splits:
        near = near_name(split, splits)
        raise DataError(
            f"{path} has no split {split!r}; "
            + (f"did you mean {near}?" if near else f"it has {', '.join(splits)}.")
        )
    ids = splits[split]
    if not isinstance(ids, list) or not ids:
        raise DataError(f"{path}, {split}: found {kind_of(ids)}; a list of problem ids was wanted.")
    names = [str(name) for name in ids]
    unknown = compare_ids(problems, names).unknown
    if unknown:
        told = tell(unknown, f"id of {split} has no problem|ids of {split} have no problem")
        raise DataError(f"{path}: {told}; take both files from one download.")
    return [problems[name] for name in dict.fromkeys(names)]
