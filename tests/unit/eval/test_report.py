"""The report: what it says about runs whose outcome is known, and that the page stands alone."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llava.eval import report
from tests.unit.eval.conftest import MakeRun


def write(runs: Path, *flags: str) -> tuple[str, dict]:
    """The page and results.json of a runs folder."""
    report.main(["--runs", str(runs), *flags])
    values = json.loads((runs / "results.json").read_text(encoding="utf-8"))
    return (runs / "report.html").read_text(encoding="utf-8"), values


class Outside(HTMLParser):
    """Collects what a page loads from elsewhere, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Links to a place in the page itself and pictures in the text are inside."""
        if tag == "script":
            self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not str(value).startswith(("data:", "#")):
                self.found.append(f"{name}={value}")


def test_lora_beside_full(make_run: MakeRun, examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_run("base", "base", right=0.0).parent
    make_run("lora", "lora", right=1.0, rank=64)
    make_run("full", "full", right=1.0, kept=0.0)
    make_run("naive", "lora", right=0.5, recipe="naive", rank=64)
    page, values = write(runs, "--data", str(examination))
    assert "LoRA learned 100.0\N{NO-BREAK SPACE}% and kept 100.0\N{NO-BREAK SPACE}%" in values["verdict"]
    assert values["verdict"].endswith("LoRA learned about as much and forgot less.")
    assert values["verdict"] in page
    assert [one["label"] for one in values["configurations"]] == [
        "base model", "LoRA", "full fine-tuning", "LoRA, naive data",
    ]  # fmt: skip
    assert values["at_equal_rate"][0]["retained"]["value"] == pytest.approx(1.0)
    splits = values["configurations"][1]["splits"]
    assert splits["name"]["value"] == 1.0
    assert splits["name"]["n"] == 6
    assert {"fact_reversed/both", "fact_reversed/one", "scene_colour"} <= set(splits)
    assert "Wrongly claimed" in capsys.readouterr().out
    assert page.count("<svg") == 2, "the plane and the losses"


def test_page_stands_alone_and_quotes_what_models_say(make_run: MakeRun, examination: Path) -> None:
    runs = make_run("base", "base", right=0.0).parent
    make_run("lora", "lora", right=0.5)
    page, _ = write(runs, "--data", str(examination))
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(page.encode()) < 1_000_000
    assert "Mismi &lt;script&gt;" in page, "answers are text, never markup"
    assert "data:image/webp;base64," in page
    assert str(examination) not in page


def test_the_same_runs_give_the_same_page(make_run: MakeRun, examination: Path) -> None:
    runs = make_run("base", "base", right=0.0).parent
    make_run("lora", "lora", right=0.5)
    first, _ = write(runs, "--data", str(examination))
    assert write(runs, "--data", str(examination))[0] == first


def test_seeds_are_one_configuration_and_rates_give_a_curve(make_run: MakeRun) -> None:
    runs = make_run("base", "base", right=0.0).parent
    for seed in range(2):
        for rate, right in ((1e-4, 0.3), (1e-3, 0.9)):
            for method in ("lora", "full"):
                kept = 1.0 if method == "lora" else 0.2
                make_run(
                    f"{method}-{rate}-{seed}", method, right=right, kept=kept, seed=seed, learning_rate=rate
                )
    _, values = write(runs)
    trained = [one for one in values["configurations"] if one["method"] != "base"]
    assert [len(one["runs"]) for one in trained] == [2, 2, 2, 2]
    assert len(values["at_equal_rate"]) == 2
    assert any("LoRA keeps more" in text for text in values["sentences"][1:])


def test_a_failed_control_is_shouted(make_run: MakeRun) -> None:
    runs = make_run("base", "base", right=0.0).parent
    make_run("control", "lora", right=1.0, recipe="shuffled")
    page, values = write(runs)
    assert values["controls"][0]["failed"]
    assert "cannot be trusted" in page


def test_what_cannot_be_reported_is_told(
    make_run: MakeRun, examination: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*flags: str) -> str:
        with pytest.raises(SystemExit) as stop:
            report.main(list(flags))
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "is no folder" in told("--runs", str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert "holds no runs" in told("--runs", str(tmp_path / "empty"))
    folder = make_run("lora", "lora", right=1.0)
    runs = str(folder.parent)
    assert "holds no truth.jsonl" in told("--runs", runs, "--data", str(tmp_path))
    (examination / "truth.jsonl").write_text("{}\n", encoding="utf-8")
    assert "no run of the report answered" in told("--runs", runs, "--data", str(examination))
    (folder / "scores.json").unlink()
    assert "scores.json does not exist" in told("--runs", runs)
