"""POPE: accuracy, precision, recall, F1 and share of yes, per category.

    python llava/eval/eval_pope.py --annotation-dir coco --question-file llava_pope_test.jsonl \\
        --result-file answers.jsonl

The annotations are the files coco_pope_CATEGORY.json of the benchmark; questions carry a category. Words are
read as for the published figures, which take NO and "No" for yes; --no-in-any-form reads them as no.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_files import (
    Entry,
    read_answers,
    read_entries,
    refuse_missing,
    refuse_repeated,
    refuse_unknown,
    wanted_path,
)
from llava.eval.evidence import add_results_flag, publish
from llava.eval.metrics.pairing import TWICE, compare_ids, tell
from llava.eval.metrics.pope import (
    Item,
    Judged,
    block,
    by_category,
    figures_of,
    label_is_yes,
    pair_labels,
    says_yes,
    scored_of,
    word_of,
)
from llava.records import Problems, shorten, suggestion
from llava.terminal import say

logger = logging.getLogger(__name__)

START = "coco_pope_"
QUESTIONS = 'question file (JSON lines with "question_id" and "category")'
LABELS = 'annotation file (JSON lines with "label": yes or no)'


def parser() -> CommandParser:
    """The original's flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--annotation-dir", help=f"folder of the {START}CATEGORY.json files")
    options.add_argument("--question-file", help="JSON lines with question_id and category")
    options.add_argument("--result-file", help="JSON lines with question_id and text")
    options.add_argument(
        "--no-in-any-form", action="store_true", help='read NO, "No" and no! as no, unlike the original'
    )
    add_results_flag(options)
    return options


def annotation_files(folder: Path) -> dict[str, Path]:
    """Category -> file, in alphabetical order; `UsageError` without any."""
    if not folder.is_dir():
        raise UsageError(f"--annotation-dir {folder} is no folder{suggestion(folder)}.")
    files = {file.stem.removeprefix(START): file for file in sorted(folder.glob(f"{START}*.json"))}
    if not files:
        raise UsageError(f"--annotation-dir {folder} holds no {START}CATEGORY.json; name POPE's folder.")
    return files


def item_of(entry: Entry) -> Item:
    """A question or label as the metric takes it."""
    name, image, text = (entry.fields.get(key) for key in ("question_id", "image", "text"))
    return Item(
        None if name is None else str(name),
        None if image is None else str(image),
        None if text is None else str(text),
    )


def read_labels(path: Path) -> tuple[list[Item], list[str]]:
    """The labels of a category, and what they say. `DataError` lists what is neither yes nor no."""
    entries = read_entries(path, LABELS, ("label",), ("question_id", "image", "text"))
    problems = Problems(path)
    for entry in entries:
        if entry.text("label").strip().lower() not in ("yes", "no"):
            found = shorten(entry.text("label"))
            problems.add(f"{entry.place}, label", f"found {found}; yes or no was wanted")
    problems.raise_any()
    numbered = [entry for entry in entries if entry.fields.get("question_id") is not None]
    refuse_repeated(numbered, path, TWICE)
    return [item_of(entry) for entry in entries], [entry.text("label") for entry in entries]


def judge_category(
    category: str, file: Path, questions: Sequence[Entry], answers: Mapping[str, str], *, any_form: bool
) -> list[Judged]:
    """The answers of one category held against its labels."""
    items, labels = read_labels(file)
    asked = [item_of(entry) for entry in questions]
    try:
        places = pair_labels(asked, items)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    if not any_form:
        said = {name: labels[place] for name, place in places.items()}
        odd = [name for name in said if label_is_yes(said[name]) != label_is_yes(said[name], any_form=True)]
        warn_other_forms(odd, file, "label is no in another form|labels are no in another form")
    judged = []
    for item in asked:
        name = str(item.question_id)
        said_yes = says_yes(answers[name], any_form=any_form)
        is_yes = label_is_yes(labels[places[name]], any_form=any_form)
        judged.append(Judged(item, category, said_yes, is_yes, word_of(answers[name], said_yes=said_yes)))
    return judged


def judge_files(
    files: Mapping[str, Path], question_file: Path, result_file: Path, *, any_form: bool
) -> list[Judged]:
    """All answers, judged. `UsageError` lists what does not belong together.

    `files`: category -> annotation file.
    """
    questions = read_entries(question_file, QUESTIONS, ("question_id", "category"), ("image", "text"))
    refuse_repeated(questions, question_file, TWICE)
    asked = {name: [entry for entry in questions if entry.text("category") == name] for name in files}
    folder = next(iter(files.values())).parent
    warn_categories(files, {entry.text("category") for entry in questions}, folder)
    entries = read_answers(result_file)
    refuse_repeated(entries, result_file)
    answers = {entry.question_id: entry.text() for entry in entries}
    refuse_unknown(compare_ids((entry.question_id for entry in questions), answers), result_file)
    scored = [entry.question_id for part in asked.values() for entry in part]
    refuse_missing(compare_ids(scored, answers), result_file)
    if not any_form:
        odd = [name for name in scored if says_yes(answers[name]) != says_yes(answers[name], any_form=True)]
        warn_other_forms(odd, result_file, "answer is no in another form|answers are no in another form")
    return [
        one
        for name, part in asked.items()
        if part
        for one in judge_category(name, files[name], part, answers, any_form=any_form)
    ]


def warn_categories(labelled: Iterable[str], asked: Iterable[str], folder: Path) -> None:
    """Tell which categories are not scored; `UsageError` when none is."""
    unlabelled, unasked = sorted(set(asked) - set(labelled)), sorted(set(labelled) - set(asked))
    if not set(labelled) & set(asked):
        raise UsageError(
            f"{folder} has labels for {', '.join(unasked)}, the questions are of {', '.join(unlabelled)}; "
            "give the files of one benchmark."
        )
    if unlabelled:
        logger.warning("%s has no labels for %s: not scored", folder, ", ".join(unlabelled))
    if unasked:
        logger.warning("there are no questions for %s: not scored", ", ".join(unasked))


def warn_other_forms(names: Sequence[str], file: Path, what: str) -> None:
    """The published rule takes some forms of no for yes; say where, so that nobody is misled."""
    if names:
        logger.warning(
            '%s: %s: NO, "No" or no! there counts as yes, as published (--no-in-any-form reads it as no)',
            file,
            tell(names, what),
        )


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Print a block per category."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    files = annotation_files(wanted_path(options.annotation_dir, "--annotation-dir"))
    question_file = wanted_path(options.question_file, "--question-file")
    result_file = wanted_path(options.result_file, "--result-file")
    judged = judge_files(files, question_file, result_file, any_form=options.no_in_any_form)
    say("".join(block(name, one) for name, one in by_category(judged).items()))
    publish(
        "pope",
        figures_of(judged),
        "f1",
        scored_of(judged),
        answers=result_file,
        truth=[files[name] for name in sorted({one.category for one in judged})],
        results_dir=options.results_dir,
        extra={"no_in_any_form": options.no_in_any_form},
    )


if __name__ == "__main__":
    main()
