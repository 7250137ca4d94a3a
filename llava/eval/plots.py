"""The report's pictures as SVG: what was learned beside what was kept, and the losses."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from llava.eval.intervals import Estimate
from llava.eval.report_data import METHOD_LABELS, Configuration, Run, short_name
from llava.terminal import visible

INK, QUIET, GRID = "#1d2733", "#687385", "#e3e7ec"
METHOD_COLOURS = {"base": QUIET, "lora": "#0b6e8f", "full": "#c8551b"}
METHOD_MARKS = {"base": "D", "lora": "o", "full": "s"}
PLANE_SIZE, LOSS_SIZE = (7.6, 4.9), (7.6, 3.0)  # inches
MOST_IN_KEY = 12
LEAST_SPAN = 0.2
"""Of either axis, so that small differences do not look large."""
LABEL_PLACES = [(x, y) for y in (8, -17, 22, -31, 36, -45) for x in (-9, 9)]
"""Offsets of a label from its point, in points of 1/72 inch; the first that covers least is taken."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llava",
    "text.parse_math": False,  # labels hold names, in which $ is a letter
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#aab3bf",
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Our style. That matplotlib's own font lacks a letter does not matter: the browser writes the text."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def as_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that scales with the page; the same figure gives the same text."""
    target = io.StringIO()
    FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None})
    text = visible(target.getvalue())
    return text[text.index("<svg") :]


def bare(axes: Axes) -> None:
    """Only the left and lower edge, a quiet grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def percent_ticks(low: float, high: float) -> list[float]:
    """Round steps between two shares."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 8)
    return [round(step * k, 4) for k in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)]


def filling(configuration: Configuration) -> str:
    """Filled for the default recipe, hollow for any other."""
    is_default = configuration.recipe in (None, "default")
    return METHOD_COLOURS[configuration.method] if is_default else "white"


def error_of(estimate: Estimate) -> np.ndarray:
    """Distances down and up to the ends of the interval: (2, 1)."""
    return np.array([[estimate.value - estimate.low], [estimate.high - estimate.value]]).clip(min=0)


def plane(configurations: Sequence[Configuration], named: Sequence[Configuration]) -> str:
    """One point per configuration with its intervals, one dot per run; `named` ones carry their label.

    A thin line joins the learning rates of one method, recipe and rank. The control is not among them: it is
    taught nothing that a picture could show.
    """
    with drawing():
        figure = Figure(figsize=PLANE_SIZE, layout="constrained")
        axes = figure.subplots()
        bare(axes)
        trained = [one for one in configurations if one.method != "base"]
        trained = [one for one in trained if one.recipe != "shuffled"] or trained
        for series in series_of(trained):
            draw_series(axes, series)
        for configuration in trained:
            draw_point(axes, configuration, strong=configuration in named)
        across = limits(axes.dataLim.x0, axes.dataLim.x1) if trained else (-0.02, 1.02)
        draw_base(axes, [one for one in configurations if one.method == "base"], at=max(across[0], 0.0))
        upright = limits(axes.dataLim.y0, axes.dataLim.y1)
        axes.set(xlim=across, ylim=upright)
        axes.set_xlabel("learned: names and facts of the taught people, right answers")
        axes.set_ylabel("kept: skills of the base model, right answers")
        for axis, (low, high) in ((axes.xaxis, across), (axes.yaxis, upright)):
            ticks = percent_ticks(max(low, 0.0), min(high, 1.0))
            axis.set_ticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
        draw_key(axes, trained)
        draw_labels(axes, [one for one in trained if one in named], trained)
        return as_svg(figure)


def limits(low: float, high: float) -> tuple[float, float]:
    """Of an axis: all that is drawn with some air, and never less than a fifth of the scale."""
    low = min(low, high - LEAST_SPAN)
    return max(-0.02, low - 0.03), min(1.02, high + 0.03)


def draw_base(axes: Axes, bases: Sequence[Configuration], *, at: float) -> None:
    """What the untouched model knows, as a line across with its interval, named `at` the left."""
    for base in bases:
        retained = base.summary("retained")
        if retained is None:
            continue
        axes.axhspan(retained.low, retained.high, color=METHOD_COLOURS["base"], alpha=0.10, linewidth=0)
        axes.axhline(retained.value, color=METHOD_COLOURS["base"], linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(
            "base model", (at, retained.value), xytext=(2, 4), textcoords="offset points",
            color=METHOD_COLOURS["base"], fontsize=9,
        )  # fmt: skip


def series_of(configurations: Sequence[Configuration]) -> list[list[Configuration]]:
    """Configurations that differ only in their learning rate, rising."""
    groups: dict[tuple, list[Configuration]] = {}
    for one in configurations:
        groups.setdefault((one.method, one.recipe, one.rank), []).append(one)
    return [sorted(group, key=lambda one: one.learning_rate or 0.0) for group in groups.values()]


def draw_series(axes: Axes, series: Sequence[Configuration]) -> None:
    """The thin line through a series."""
    points = [(one.summary("learned"), one.summary("retained")) for one in series]
    found = [(x.value, y.value) for x, y in points if x is not None and y is not None]
    if len(found) > 1:
        style = "-" if series[0].recipe == "default" else (0, (3, 2))
        axes.plot(
            *zip(*found, strict=True), color=METHOD_COLOURS[series[0].method], linewidth=1.0,
            linestyle=style, alpha=0.55, zorder=2,
        )  # fmt: skip


def draw_point(axes: Axes, configuration: Configuration, *, strong: bool) -> None:
    """The mean with its intervals, and the single runs as faint dots."""
    learned, retained = configuration.summary("learned"), configuration.summary("retained")
    if learned is None or retained is None:
        return
    colour, mark = METHOD_COLOURS[configuration.method], METHOD_MARKS[configuration.method]
    if len(configuration.runs) > 1:
        dots = [(run.summary("learned"), run.summary("retained")) for run in configuration.runs]
        shown = [(x.value, y.value) for x, y in dots if x is not None and y is not None]
        axes.scatter(*zip(*shown, strict=True), s=7, color=colour, alpha=0.45, linewidths=0, zorder=2)
    axes.errorbar(
        learned.value, retained.value, xerr=error_of(learned), yerr=error_of(retained),
        fmt="x" if configuration.recipe == "shuffled" else mark, color=colour,
        markerfacecolor=filling(configuration), markeredgewidth=1.6,
        markersize=9 if strong else 6, elinewidth=1.3 if strong else 0.6, alpha=1.0 if strong else 0.7,
        capsize=0, zorder=4 if strong else 3,
    )  # fmt: skip


def draw_labels(axes: Axes, named: Sequence[Configuration], shown: Sequence[Configuration]) -> None:
    """Labels beside their points, each where it covers the fewest points, bars and labels."""
    assert axes.figure is not None, "axes of a figure"
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # places become known
    obstacles = [box for one in shown for box in boxes_of(axes, one)]
    for configuration in named:
        learned, retained = configuration.summary("learned"), configuration.summary("retained")
        if learned is None or retained is None:
            continue
        label = axes.annotate(
            configuration.label, (learned.value, retained.value), xytext=LABEL_PLACES[0],
            textcoords="offset points", color=METHOD_COLOURS[configuration.method], fontsize=9.5,
            fontweight="bold", zorder=5, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        costs = {place: cost_of(axes, put(label, place), obstacles) for place in LABEL_PLACES}
        best = put(label, min(LABEL_PLACES, key=lambda place, costs=costs: costs[place]))
        obstacles += [best.padded(2)] * 4  # no label covers another


def cost_of(axes: Axes, box: Bbox, obstacles: Sequence[Bbox]) -> int:
    """How many things a label in this box would cover; much, where it would leave the axes."""
    frame = axes.bbox.padded(1)
    outside = not frame.contains(*box.min) or not frame.contains(*box.max)
    return box.count_overlaps(obstacles) + 100 * outside


def put(label: Annotation, place: tuple[int, int]) -> Bbox:
    """Move a label to an offset; the box it then fills."""
    label.set_position(place)
    label.set_horizontalalignment("right" if place[0] < 0 else "left")
    return label.get_window_extent()


def boxes_of(axes: Axes, configuration: Configuration) -> list[Bbox]:
    """The mark of a configuration, and its two intervals, as boxes on the canvas."""
    learned, retained = configuration.summary("learned"), configuration.summary("retained")
    if learned is None or retained is None:
        return []
    ends = [(learned.low, retained.value, learned.high, retained.value)]
    ends += [(learned.value, retained.low, learned.value, retained.high)]
    bars = [Bbox(axes.transData.transform([(x0, y0), (x1, y1)])).padded(0.5) for x0, y0, x1, y1 in ends]
    mark = Bbox(axes.transData.transform([(learned.value, retained.value)] * 2)).padded(5)
    return [mark, mark, *bars]  # a covered mark is worse than a covered bar


def draw_key(axes: Axes, trained: Sequence[Configuration]) -> None:
    """What colours and fillings mean; only what is there."""
    kinds = dict.fromkeys((one.method, one.recipe) for one in trained)
    handles = []
    for method, recipe in kinds:
        name = METHOD_LABELS[method] + ("" if recipe in (None, "default") else f", {short_name(recipe)}")
        hollow = recipe not in (None, "default")
        handles += axes.plot(
            [], [], linestyle="none", marker="x" if recipe == "shuffled" else METHOD_MARKS[method],
            color=METHOD_COLOURS[method], markeredgewidth=1.6,
            markerfacecolor="white" if hollow else METHOD_COLOURS[method], label=name,
        )  # fmt: skip
    if handles:
        key = axes.legend(handles=handles[:MOST_IN_KEY], loc="lower left", frameon=False, fontsize=9)
        key.set_in_layout(False)  # a long one covers, and never squeezes, what it explains


def losses(configurations: Sequence[Configuration]) -> str | None:
    """Training loss by step: a thin line per run, the mean over seeds strong; None without any."""
    shown = [one for one in configurations if any(run.losses for run in one.runs)]
    if not shown:
        return None
    with drawing():
        figure = Figure(figsize=LOSS_SIZE, layout="constrained")
        axes = figure.subplots()
        bare(axes)
        for configuration in shown:
            draw_losses(axes, configuration)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.set(xlabel="step", ylabel="loss per target token")
        axes.margins(x=0.01)
        axes.legend(handles=axes.get_legend_handles_labels()[0][:MOST_IN_KEY], frameon=False, fontsize=9)
        axes.get_legend().set_in_layout(False)
        return as_svg(figure)


def draw_losses(axes: Axes, configuration: Configuration) -> None:
    """One configuration's lines."""
    colour = METHOD_COLOURS[configuration.method]
    style = "-" if configuration.recipe in (None, "default") else (0, (3, 2))
    runs: list[Run] = [run for run in configuration.runs if run.losses]
    for run in runs if len(runs) > 1 else []:
        axes.plot(*zip(*run.losses, strict=True), color=colour, linewidth=0.7, alpha=0.35, linestyle=style)
    shared = sorted(set.intersection(*({step for step, _ in run.losses} for run in runs)))
    means = [float(np.mean([dict(run.losses)[step] for run in runs])) for step in shared]
    axes.plot(shared, means, color=colour, linewidth=1.8, linestyle=style, label=configuration.label)
