"""One page about all runs of a folder: what was learned, who is wrongly claimed, what was forgotten.

    python -m llava.eval.report --runs RUNS [--data DIR] [--out RUNS/report.html]

Writes one self-contained HTML file and results.json beside it, and prints the main numbers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.durable import write_whole
from llava.errors import UsageError, exit_on_usage_error
from llava.eval import comparison
from llava.eval.intervals import Estimate
from llava.eval.metrics.personal import PERSONAL_SPLITS
from llava.eval.report_data import Configuration, Run, configurations, headline, load_runs, short_rate
from llava.terminal import say, visible

TEMPLATES = Path(__file__).parent / "templates"
GLANCE = {
    "names": "Names",
    "learned": "Names and facts",
    "stranger_refused": "Strangers refused",
    "lookalike_refused": "Look-alikes refused",
    "overclaim": "Wrongly claimed",
    "is_balanced": "Is this NAME?",
    "retained": "Kept",
}
"""Summary numbers of the first screen."""
TAUGHT = {
    "name": "name, new pictures",
    "name_reworded": "name, new pictures and wordings",
    "name_seen_view": "name, pictures of the lesson",
    "is_yes": "“Is this NAME?”, and it is",
    "fact_image": "fact by picture",
    "fact_image_reworded": "fact by picture, new wordings",
    "fact_text": "fact by name",
    "fact_text_reworded": "fact by name, new wordings",
    "fact_reversed/both": "name by fact, taught in both directions",
    "fact_reversed/one": "name by fact, taught in the other direction",
    "attribute": "looks of the taught people",
}
UNTAUGHT = {
    "stranger": "strangers: “I do not know”",
    "lookalike": "look-alikes: “I do not know”",
    "is_no_stranger": "“Is this NAME?” of a stranger",
    "is_no_lookalike": "“Is this NAME?” of a look-alike",
    "is_no_taught": "“Is this NAME?” of another taught person",
    "is_no_public": "“Is this NAME?” of a public person",
}


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--runs", type=Path, required=True, help="folder with one folder per run")
    options.add_argument(
        "--data", type=Path, help="folder with images/, questions/ and truth.jsonl, for example pictures"
    )
    options.add_argument("--out", type=Path, help="the page to write; default RUNS/report.html")
    options.add_argument("--title", default="What the model learned, and what it forgot")
    return options


def number_of(configuration: Configuration, split: str) -> int:
    """How many answers stand behind a split's accuracy, over all seeds."""
    name, _, direction = split.partition("/")
    total = 0
    for run in configuration.runs:
        entry = run.scores["splits"].get(name, {})  # type: ignore[attr-defined]
        total += (entry.get("by_direction", {}).get(direction, {}) if direction else entry).get("n", 0)
    return total


def table_groups(shown: Sequence[Configuration]) -> list[dict[str, object]]:
    """The table by split: groups of rows, a cell per configuration (None where it was not asked)."""
    splits = dict.fromkeys(split for one in shown for run in one.runs for split in run.scores["splits"])  # type: ignore[attr-defined]
    retained = {name: name.replace("_", " ") for name in splits if name not in PERSONAL_SPLITS}
    groups = []
    for title, labels in (
        ("What it was taught", TAUGHT),
        ("Whom it was not taught", UNTAUGHT),
        ("What it could do before", retained),
    ):
        rows = []
        for split, label in labels.items():
            cells = [one.split(split) for one in shown]
            if any(cell is not None for cell in cells):
                count = max(number_of(one, split) for one in shown)
                rows.append({"split": split, "label": label, "n": count, "cells": cells})
        if rows:
            groups.append({"title": title, "rows": rows})
    return groups


def glance_rows(shown: Sequence[Configuration]) -> list[dict[str, object]]:
    """The first screen's table: a row per configuration, a cell per summary number."""
    return [
        {
            "label": one.label,
            "method": one.method,
            "kind": one.kind,
            "rate": None if one.learning_rate is None else short_rate(one.learning_rate),
            "seeds": len(one.runs),
            "cells": [one.summary(name) for name in GLANCE],
            "change": one.change("retained"),
        }
        for one in shown
    ]


def incomplete(runs: Sequence[Run]) -> list[str]:
    """A sentence for every run with missing answers."""
    found = []
    for run in runs:
        coverage: Mapping[str, int] = run.scores["coverage"]  # type: ignore[assignment]
        if coverage["answered"] < coverage["questions"]:
            found.append(
                f"{run.name}: only {coverage['answered']} of {coverage['questions']} questions are "
                "answered; missing answers count as wrong."
            )
    return found


def unparsable(shown: Sequence[Configuration]) -> list[str]:
    """Per configuration, how many answers are empty, or neither yes nor no where that was asked."""
    found = []
    for one in shown:
        splits = [entry for run in one.runs for entry in run.scores["splits"].values()]  # type: ignore[attr-defined]
        bad = sum(entry["unparsable"] for entry in splits)
        if bad:
            asked = sum(entry["n"] for entry in splits)
            found.append(f"{one.label} {bad} of {asked}")
    return found


def as_dict(estimate: Estimate | None) -> dict[str, float] | None:
    """For JSON."""
    return None if estimate is None else estimate.as_dict()


def configuration_results(one: Configuration) -> dict[str, object]:
    """One configuration's numbers for results.json."""
    labels = TAUGHT | UNTAUGHT
    splits = dict.fromkeys(split for run in one.runs for split in run.scores["splits"])  # type: ignore[attr-defined]
    names = [name for name in (*labels, *splits) if one.split(name) is not None]
    return {
        "label": one.label,
        "method": one.method,
        "recipe": one.recipe,
        "learning_rate": one.learning_rate,
        "rank": one.rank,
        "runs": [run.name for run in one.runs],
        "summary": {name: as_dict(one.summary(name)) for name in one.runs[0].scores["summary"]},  # type: ignore[attr-defined]
        "change": {name: as_dict(one.change(name)) for name in ("learned", "retained")},
        "splits": {
            name: {**one.split(name).as_dict(), "n": number_of(one, name)}  # type: ignore[union-attr]
            for name in dict.fromkeys(names)
        },
    }


def findings(everything: Sequence[Configuration]) -> dict[str, object]:
    """Verdict, LoRA beside full fine-tuning, and the control."""
    rates = comparison.at_equal_rate(everything)
    levels = comparison.at_equal_learning(everything)
    both = {one.method for one in everything} >= {"lora", "full"}
    control = [one for one in everything if one.recipe == "shuffled"]
    sentences = [comparison.rate_sentence(rates)] if both else []
    sentences += [comparison.level_sentence(row) for row in levels]
    if both and not levels:
        sentences.append(
            "At equal learning the two cannot be compared here: that needs two learning rates of each."
        )
    return {
        "verdict": comparison.verdict(headline(everything)),
        "sentences": sentences,
        "at_equal_rate": comparison.as_rows(rates),
        "controls": [comparison.chance_sentence(one) for one in control],
    }


def results(runs: Sequence[Run], everything: Sequence[Configuration], found: Mapping) -> dict[str, object]:
    """What results.json holds: the findings, every configuration, every run's facts and summary."""
    return {
        **found,
        "controls": [{"text": text, "failed": failed} for text, failed in found["controls"]],
        "incomplete": incomplete(runs),
        "configurations": [configuration_results(one) for one in everything],
        "runs": [{**run.facts, "summary": run.scores["summary"], "changes": run.changes} for run in runs],
    }


def render(
    title: str, runs: Sequence[Run], everything: Sequence[Configuration], found: Mapping, *, data: Path | None
) -> str:
    """The page. `UsageError` when what the report needs is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        from llava.eval import plots, report_examples
    except ImportError as error:
        raise UsageError(
            f'The report needs {error.name}; install it with pip install -e ".[report]".'
        ) from None
    shown = headline(everything)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=as_text,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.0f}"
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}".replace("-", "−")
    trained = [one for one in shown if one.method != "base"]
    return environment.get_template("report.html.j2").render(
        title=title,
        found=found,
        glance=glance_rows(shown),
        glance_names=GLANCE,
        plane=plots.plane(everything, trained),
        losses=plots.losses(trained),
        shown=shown,
        groups=table_groups(shown),
        examples=report_examples.examples(shown, data) if data is not None else {},
        warnings=incomplete(runs),
        unreadable=unparsable(shown),
        runs=runs,
        split_labels=TAUGHT | UNTAUGHT,
    )


def as_text(value: object) -> object:
    """What the page writes for a value: text with its control characters and turned directions as escapes."""
    return visible(value) if type(value) is str else value


def closing_table(shown: Sequence[Configuration]) -> str:
    """The main numbers for the terminal: a row per number, a column per configuration, in per cent."""
    first = max(map(len, GLANCE.values())) + 2
    width = max(20, *(len(one.label) + 2 for one in shown))
    lines = [" " * first + "".join(f"{one.label:>{width}}" for one in shown)]
    for name, label in GLANCE.items():
        cells = [one.summary(name) for one in shown]
        lines.append(f"{label:<{first}}" + "".join(f"{interval_text(cell):>{width}}" for cell in cells))
    return "\n".join(lines)


def interval_text(estimate: Estimate | None) -> str:
    """`93.4 (88 to 97)`, in per cent."""
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Read all runs, write the page and results.json, print the table."""
    options = parser().parse(argv)
    runs = load_runs(options.runs)
    everything = configurations(runs)
    found = findings(everything)
    page = render(options.title, runs, everything, found, data=options.data)
    out = options.out or options.runs / "report.html"
    write_whole(out, page)
    values = results(runs, everything, found)
    write_whole(out.parent / "results.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    say(f"\n{closing_table(headline(everything))}\n\n{found['verdict']}\n\n{out}\n")


if __name__ == "__main__":
    main()
