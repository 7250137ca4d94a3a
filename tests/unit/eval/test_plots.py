"""The plane of learned and kept: labels that cover no mark, and no control among the points."""

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Annotation

from llava.eval import plots, report_data
from tests.unit.eval.conftest import MakeRun


def configurations(make_run: MakeRun) -> list[report_data.Configuration]:
    """Both methods, nearly equal, beside the base and the control."""
    runs = make_run("base", "base", right=0.0).parent
    make_run("lora", "lora", right=0.9)
    make_run("full", "full", right=0.9)
    make_run("control", "lora", right=0.1, recipe="shuffled")
    return report_data.configurations(report_data.load_runs(runs))


def test_labels_cover_neither_marks_nor_each_other(make_run: MakeRun) -> None:
    taught = [one for one in configurations(make_run) if one.method != "base"][:2]
    figure = Figure(figsize=plots.PLANE_SIZE)
    axes = figure.subplots()
    axes.set(xlim=(-1.5, 2.0), ylim=(0.5, 1.02))
    plots.draw_labels(axes, taught, taught)
    labels = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
    assert len(labels) == 2
    marks = [plots.boxes_of(axes, one)[0] for one in taught]
    assert marks[0].overlaps(marks[1]), "the points must be near each other, else any place would do"
    assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))
    assert not any(label.overlaps(mark) for label in labels for mark in marks)


def test_the_control_is_not_in_the_plane(make_run: MakeRun) -> None:
    everything = configurations(make_run)
    named = [one for one in everything if one.method != "base"]
    page = plots.plane(everything, named)
    assert "full fine-tuning" in page
    assert "shuffled" not in page
