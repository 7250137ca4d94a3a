"""The runs folder as data: every run with its scores and losses, and configurations (runs that differ in
their seed).

RUNS/<run>/ holds run.json, scores.json (llava.eval.score_personal), answers/*.jsonl and, when trained,
trainer_state.json.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from llava.errors import UsageError
from llava.eval.intervals import Estimate, over_seeds
from llava.eval.metrics.personal import against_base
from llava.terminal import visible

METHODS = ("base", "lora", "full")
METHOD_LABELS = {"base": "base model", "lora": "LoRA", "full": "full fine-tuning"}
RECIPES = ("default", "naive", "shuffled")
LABEL_LETTERS = 40
NUMBERS = ("learning_rate", "rank", "train_seconds")
WANTED_KEYS = {
    "name",
    "method",
    "recipe",
    "seed",
    "learning_rate",
    "rank",
    "train_seconds",
    "checkpoint",
    "command",
}


@dataclass(frozen=True)
class Run:
    """One trained (or untouched) model: how it was made, what it scored, its answers and losses.

    `changes` compares with the base run on the same questions, None where there is none.
    """

    folder: Path
    facts: Mapping[str, object]
    scores: Mapping[str, object]
    losses: tuple[tuple[int, float], ...]
    changes: Mapping[str, object] | None = None

    @property
    def name(self) -> str:
        """The run's own name."""
        return str(self.facts["name"])

    @property
    def method(self) -> str:
        """base, lora or full."""
        return str(self.facts["method"])

    @property
    def recipe(self) -> str | None:
        """Which data it was taught with; None for the base."""
        recipe = self.facts.get("recipe")
        return None if recipe is None else str(recipe)

    @property
    def seed(self) -> object:
        """Its seed, if it has one."""
        return self.facts.get("seed")

    @property
    def truth(self) -> object:
        """Hash of the truth file: runs with the same one answered the same questions."""
        return self.scores["truth_sha256"]

    def summary(self, metric: str) -> Estimate | None:
        """One of the summary numbers."""
        return estimate_of(self.scores["summary"].get(metric))  # type: ignore[attr-defined]

    def split(self, split: str) -> Estimate | None:
        """Accuracy in a split; `fact_reversed/both` is a split's part by direction."""
        name, _, direction = split.partition("/")
        entry = self.scores["splits"].get(name)  # type: ignore[attr-defined]
        if entry is not None and direction:
            entry = entry.get("by_direction", {}).get(direction)
        return None if entry is None else Estimate(entry["accuracy"], entry["low"], entry["high"])

    def change(self, metric: str) -> Estimate | None:
        """`learned` or `retained` minus the base's."""
        return None if self.changes is None else estimate_of(self.changes[metric])


@dataclass(frozen=True)
class Configuration:
    """Runs that differ only in their seed, shown as one."""

    method: str
    recipe: str | None
    learning_rate: float | None
    rank: int | None
    label: str
    runs: tuple[Run, ...] = field(repr=False)

    def summary(self, metric: str) -> Estimate | None:
        """Mean of a summary number over the seeds."""
        return mean_of([run.summary(metric) for run in self.runs])

    def split(self, split: str) -> Estimate | None:
        """Mean accuracy in a split over the seeds."""
        return mean_of([run.split(split) for run in self.runs])

    def change(self, metric: str) -> Estimate | None:
        """Mean difference from the base over the seeds."""
        return mean_of([run.change(metric) for run in self.runs], floor=-1.0)

    @property
    def kind(self) -> str:
        """What colours its marks: the recipe, or `base`."""
        return self.recipe or "base"


def estimate_of(entry: Mapping[str, float] | None) -> Estimate | None:
    """From its JSON form."""
    return None if entry is None else Estimate(entry["value"], entry["low"], entry["high"])


def mean_of(estimates: Sequence[Estimate | None], *, floor: float = 0.0) -> Estimate | None:
    """Over seeds; None when any run lacks the number."""
    found = [estimate for estimate in estimates if estimate is not None]
    return over_seeds(found, floor=floor) if found and len(found) == len(estimates) else None


def load_runs(folder: Path) -> list[Run]:
    """All runs of a folder, base runs first, each compared with the base on its own questions.

    `UsageError` for a folder without runs, an unfinished run, or an unknown method.
    """
    if not folder.is_dir():
        raise UsageError(f"--runs {folder} is no folder; name the folder that holds the runs.")
    runs = [load_run(file.parent) for file in sorted(folder.glob("*/run.json"))]
    if not runs:
        raise UsageError(f"--runs {folder} holds no runs; each needs RUN/run.json and RUN/scores.json.")
    bases = {run.truth: run for run in runs if run.method == "base"}
    return sorted((with_changes(run, bases.get(run.truth)) for run in runs), key=order_of)


def order_of(run: Run) -> tuple:
    """Base, then recipes in their order, LoRA before full, then rising learning rate, rank and seed."""
    recipe = 0 if run.recipe is None else 1 + RECIPES.index(run.recipe) if run.recipe in RECIPES else 1.5
    numbers = [float(run.facts.get(key) or 0) for key in ("learning_rate", "rank")]  # type: ignore[arg-type]
    return (
        run.method != "base",
        recipe,
        str(run.recipe),
        METHODS.index(run.method),
        *numbers,
        str(run.seed),
        run.name,
    )


def with_changes(run: Run, base: Run | None) -> Run:
    """The run with its comparison to the base."""
    if base is None or run.method == "base":
        return run
    return Run(run.folder, run.facts, run.scores, run.losses, against_base(run.scores, base.scores))


def load_run(folder: Path) -> Run:
    """One run folder."""
    facts = read_object(folder / "run.json", "write it when the run ends")
    facts = {"name": folder.name} | {key: scrub(value) for key, value in facts.items()}
    if facts.get("method") not in METHODS:
        raise UsageError(
            f"{folder / 'run.json'}: method is {facts.get('method')!r}; known: {', '.join(METHODS)}."
        )
    for name in NUMBERS:
        if not isinstance(facts.get(name), int | float | None):
            raise UsageError(
                f"{folder / 'run.json'}: {name} is {facts[name]!r}; a number or null was wanted."
            )
    scores = read_object(folder / "scores.json", "score the run's answers with llava.eval.score_personal")
    missing = {"summary", "splits", "outcomes", "truth_sha256", "coverage"} - set(scores)
    if missing:
        raise UsageError(f"{folder / 'scores.json'} lacks {', '.join(sorted(missing))}; score the run again.")
    return Run(folder, facts, scores, read_losses(folder / "trainer_state.json"))


def read_object(path: Path, remedy: str) -> dict[str, object]:
    """A JSON object from a file; `UsageError` with the remedy."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; {remedy}.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no readable JSON ({error}); {remedy} again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object; {remedy} again.")
    return value


def read_losses(path: Path) -> tuple[tuple[int, float], ...]:
    """(step, loss) pairs of a trainer_state.json; nothing for a run that was not trained."""
    if not path.is_file():
        return ()
    history = read_object(path, "train the run").get("log_history", [])
    return tuple((int(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry)  # type: ignore[attr-defined]


def scrub(value: object) -> object:
    """Absolute paths in a text are cut to their last part: a report tells no one where somebody's home is."""
    if isinstance(value, dict):
        return {key: scrub(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [scrub(entry) for entry in value]
    if not isinstance(value, str):
        return value
    value = visible(value)
    value = re.sub(r"(?<![\w./~-])~?(?:/[^\s'\"=:,;]+)+/?", lambda found: shorten_path(found.group()), value)
    return re.sub(r"\b[A-Za-z]:\\[^\s'\"]+", lambda found: f"…/{PureWindowsPath(found.group()).name}", value)


def shorten_path(path: str) -> str:
    """`…/last part`."""
    return f"…/{path.rstrip('/').rsplit('/', 1)[-1]}"


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Runs that differ only in their seed together, in the order of the runs, labelled by what tells them
    apart.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        key = (run.method, run.recipe, *(run.facts.get(name) for name in ("learning_rate", "rank")))
        groups.setdefault(key, []).append(run)
    split_up: list[tuple[tuple, list[Run]]] = []
    for key, members in groups.items():
        same_seed = len({str(run.seed) for run in members}) < len(members) and key[0] != "base"
        split_up += [(key, [run]) for run in members] if same_seed else [(key, members)]
    labels = [label_of(key, [other for other, _ in split_up]) for key, _ in split_up]
    return [
        Configuration(
            *key, label if labels.count(label) == 1 else f"{label} ({members[0].name})", tuple(members)
        )
        for (key, members), label in zip(split_up, labels, strict=True)
    ]


def short_name(recipe: str) -> str:
    """A recipe for labels: one line, not long."""
    line = " ".join(recipe.split())
    return line if len(line) <= LABEL_LETTERS else line[:LABEL_LETTERS] + "…"


def label_of(key: tuple, keys: Sequence[tuple]) -> str:
    """Method, then the recipe unless it is the default, then learning rate and rank where these vary."""
    method, recipe, rate, rank = key
    alike = [other for other in keys if other[:2] == key[:2]]
    parts = [METHOD_LABELS[method]]
    if recipe not in (None, "default"):
        known = {"naive": "naive data", "shuffled": "shuffled names"}
        parts.append(known.get(recipe, short_name(recipe)))
    if rank is not None and len({other[3] for other in alike}) > 1:
        parts.append(f"rank {rank}")
    if rate is not None and len({other[2] for other in alike}) > 1:
        parts.append(f"at {short_rate(rate)}")
    return ", ".join(parts)


def short_rate(rate: float) -> str:
    """A learning rate as people write it: 2e-4."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def quality(configuration: Configuration) -> float:
    """Harmonic mean of learned and retained: low when either is."""
    learned, retained = configuration.summary("learned"), configuration.summary("retained")
    if learned is None or retained is None or learned.value + retained.value == 0:
        return 0.0
    return 2 * learned.value * retained.value / (learned.value + retained.value)


def headline(all_configurations: Sequence[Configuration]) -> list[Configuration]:
    """Per method and recipe the configuration with the best harmonic mean of learned and retained."""
    best: dict[tuple, Configuration] = {}
    for configuration in all_configurations:
        key = (configuration.method, configuration.recipe)
        if key not in best or quality(configuration) > quality(best[key]):
            best[key] = configuration
    return list(best.values())
