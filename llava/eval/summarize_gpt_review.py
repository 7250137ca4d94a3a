"""Means of the scores that a judge model gave: relative score, reference and model, per category.

    python llava/eval/summarize_gpt_review.py -d reviews
    python llava/eval/summarize_gpt_review.py -f reviews/mine.jsonl

A line holds question_id, a pair of scores as `tuple` or `score`, and maybe a category.
"""

import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import coverage_line, read_entries
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.gpt_review import FAILED, Pair, Review, figures_of, scored_of, summarise
from llava.eval.metrics.pairing import repeated_ids, tell
from llava.records import Problems, Row, field_of, kind_of, read_rows, shorten, suggestion
from llava.terminal import say

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
STARTS = ("gpt4_text", "reviews_", "review_")
VERSIONS = ("0314", "0613")
"""Of the judge: a file belongs to the last when its name says so, else to the first."""
QUESTIONS = 'question file (JSON lines with "question_id" and "image")'
REVIEWS = 'review file (JSON lines with "question_id" and "tuple", two scores)'


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("-d", "--dir", help="folder of the review files")
    options.add_argument("-v", "--version", help=f"only files of this judge: {' or '.join(VERSIONS)}")
    options.add_argument("-s", "--select", nargs="*", help="only files whose name holds all of these")
    options.add_argument("-f", "--files", nargs="*", default=[], help="review files, instead of all in --dir")
    options.add_argument("-i", "--ignore", nargs="*", default=[], help="question ids to leave out")
    options.add_argument("--question-file", type=Path, help="tells the pictures, for the intervals")
    options.add_argument(
        "--answers-file", type=Path, help="the judged answers, whose run is told in the results"
    )
    add_results_flag(options)
    return options


def short_name(file: str) -> str:
    """How a file is called in the summary."""
    return Path(file).name.replace("gpt4_text_", "").replace(SUFFIX, "")


def version_of(name: str) -> str:
    """The judge's version, told by the file's name."""
    return VERSIONS[1] if VERSIONS[1] in name else VERSIONS[0]


def review_files(options: Namespace) -> list[tuple[str, Path]]:
    """(name in the summary, file), in the order of file names; `UsageError` when there are none."""
    folder = None if options.dir is None else Path(options.dir)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--dir {folder} is no folder{suggestion(folder)}.")
    files = options.files
    if not files:
        if folder is None:
            raise UsageError("name review files with --files, or their folder with --dir (see --help).")
        starts = ("",) if "review" in str(folder) else STARTS
        files = [
            file.name for file in folder.iterdir() if file.name.startswith(starts) and file.suffix == SUFFIX
        ]
    chosen = []
    for file in sorted(files):
        name = short_name(file)
        selected = all(part in name for part in options.select or ())
        if selected and options.version in (None, version_of(name)):
            chosen.append((name, Path(file) if folder is None else folder / file))
    if not chosen:
        raise UsageError(
            f"none of {len(files)} review files is chosen; a name starts with {', '.join(STARTS)}, and must "
            "fit --select and --version."
        )
    return chosen


def scores_of(row: Row, problems: Problems) -> Pair | None:
    """The pair of a row, or None when there is no such pair."""
    assert isinstance(row.value, dict)
    value = row.value.get("tuple", row.value.get("score"))
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in (int, float) for one in value):
        what = shorten(value) if "tuple" in row.value or "score" in row.value else "none"
        problems.add(f"{row.place}, tuple", f"found {what}; a list of two scores was wanted")
        return None
    return float(value[0]), float(value[1])


def read_reviews(path: Path) -> list[Review]:
    """All reviews of a file. `DataError` lists what is wrong with it."""
    problems, reviews = Problems(path), []
    for row in read_rows(path, REVIEWS):
        question_id = field_of(row, "question_id", problems)
        if not isinstance(row.value, dict):
            continue
        pair, category = scores_of(row, problems), row.value.get("category")
        if category is not None and not isinstance(category, str):
            problems.add(f"{row.place}, category", f"found {kind_of(category)}; a text was wanted")
        elif pair is not None:
            reviews.append(Review(str(question_id), pair, category))
    repeated = repeated_ids(review.question_id for review in reviews)
    if repeated:
        told = tell(repeated, "question is reviewed twice|questions are reviewed twice")
        problems.add("question_id", f"{told}; keep one review of each")
    problems.raise_any()
    return reviews


def readable(path: Path, reviews: Sequence[Review]) -> list[Review]:
    """Reviews with scores; those that the judge did not give are told and not averaged."""
    failed = [review.question_id for review in reviews if review.scores == FAILED]
    if failed:
        told = tell(failed, "review has no scores|reviews have no scores")
        logger.warning("%s: %s; left out of the means", path, told)
    return [review for review in reviews if review.scores != FAILED]


def read_pictures(path: Path | None) -> dict[str, str]:
    """Question id -> picture, as far as a question file tells it."""
    entries = [] if path is None else read_entries(path, QUESTIONS, ("question_id",), ("image",))
    return {entry.question_id: entry.text("image") for entry in entries if entry.fields.get("image")}


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print the summary of each file, then the evidence of each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    ignored, pictures = set(options.ignore), read_pictures(options.question_file)
    files = review_files(options)
    if options.results_dir and len(files) > 1:
        raise UsageError("--results-dir takes the results of one file; name it with --files.")
    parts, found = [], []
    for name, path in files:
        kept = [review for review in read_reviews(path) if review.question_id not in ignored]
        scored = readable(path, kept)
        parts.append(summarise(name, scored) + coverage_line(len(scored), len(kept), "reviews have scores"))
        found.append((path, kept, scored))
    say("".join(parts))
    for path, kept, scored in found:
        if not scored:
            logger.warning("%s: no review has scores, so there is no evidence", path)
        else:
            publish_reviews(path, kept, scored, pictures, options)


def publish_reviews(
    path: Path,
    kept: Sequence[Review],
    scored: Sequence[Review],
    pictures: Mapping[str, str],
    options: Namespace,
) -> None:
    """The evidence of one file; `scored` are the reviews with scores among those that are `kept`."""
    rows = scored_of(scored, pictures)
    have = {review.question_id for review in scored}
    publish(
        "llavabench",
        figures_of(scored, rows),
        "relative",
        rows,
        answers=path,
        truth=[],
        results_dir=options.results_dir,
        run_of=options.answers_file,
        extra={"without_mark": [review.question_id for review in kept if review.question_id not in have]},
    )


if __name__ == "__main__":
    main()
