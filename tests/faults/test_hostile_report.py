"""A report about models that answer with attacks: a browser shows text, runs nothing and fetches nothing."""

import functools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from llava.eval import report, score_personal
from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.hostile import Counter, counting_server
from tests.faults.payloads import HUGE, MARKUP, STEERING, page_payloads
from tests.unit.eval.conftest import write_lines

CHROMIUM = next(
    (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
)
CHROMIUM_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
TITLE = "An ordinary title"
SPLITS = (
    "name", "name_reworded", "fact_image", "fact_image_reworded", "fact_text", "lookalike", "stranger",
    "is_yes", "is_no_stranger", "is_no_lookalike", "is_no_taught", "fact_reversed", "scene_colour",
)  # fmt: skip
MODELS = (("base", None), ("lora", "default"), ("full", "default"), ("lora", "naive"))


@pytest.fixture(scope="module")
def server() -> Iterator[Counter]:
    with counting_server() as counter:
        yield counter


def write_runs(folder: Path, payloads: list[str]) -> tuple[Path, Path]:
    """DATA and RUNS in which every text that a report shows is one of the payloads; all of them are used."""
    used = 0

    def text() -> str:
        nonlocal used
        used += 1
        return payloads[used % len(payloads)]

    data, runs = folder / "data", folder / "runs"
    truth, questions = [], []
    splits = [*SPLITS, *(text().replace("/", "_") for _ in range(6))]
    for split in splits:
        for number in range(4):
            name = f"{len(truth)} {text()[:80]}"
            answer = {"is_yes": "yes"}.get(split, "no" if split.startswith("is_") else text())
            truth.append(
                {"question_id": name, "split": split, "answer": answer or "-", "identity": f"id{number}"}
            )
            questions.append(
                {"question_id": name, "text": text(), "image": "one.png" if number % 2 else text()}
            )
    write_lines(truth, data / "truth.jsonl")
    write_lines(questions, data / "questions" / "personal.jsonl")
    (data / "images").mkdir()
    Image.new("RGB", (96, 96), "teal").save(data / "images" / "one.png")
    kinds = [*MODELS, *(("lora", text()[:60]) for _ in range(12))]
    for number, (method, recipe) in enumerate(kinds):
        right = [
            row["answer"] if number % 3 == 1 and index % 5 else text() for index, row in enumerate(truth)
        ]
        answers = [
            {"question_id": row["question_id"], "prompt": "?", "text": said}
            for row, said in zip(truth, right, strict=True)
        ]
        run = runs / f"run{number}"
        write_lines(answers, run / "answers" / "personal.jsonl")
        facts = {
            "name": text()[:200], "method": method, "recipe": recipe, "seed": text()[:20],
            "learning_rate": 1e-3, "rank": 8, "train_seconds": 1.0, "checkpoint": text(),
            "command": f"{Path.home()}/train.sh {text()}"[:3000], "commit": text()[:60],
            "checkpoint_sha256": text()[:60], "versions": {text()[:60]: text()[:60]},
        }  # fmt: skip
        (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
        state = {"log_history": [{"step": step, "loss": 2.0 / step} for step in range(1, 4)]}
        (run / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
        flags = ["--truth", str(data / "truth.jsonl"), "--out", str(run / "scores.json")]
        score_personal.main([*flags, "--answers", str(run / "answers" / "personal.jsonl")])
    assert used > 2 * len(payloads), "every payload stands in the files twice"
    return data, runs


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, server: Counter) -> Path:
    """The report about them."""
    folder = tmp_path_factory.mktemp("report")
    data, runs = write_runs(folder, page_payloads(server.url))
    report.main(["--runs", str(runs), "--data", str(data), "--title", TITLE])
    return runs / "report.html"


def browse(page: Path, folder: Path, *flags: str) -> str:
    """What a headless browser makes of a page; it gets a second for what the page does later."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *CHROMIUM_FLAGS,
        f"--user-data-dir={folder}",
        "--virtual-time-budget=3000",
        *flags,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    time.sleep(0.3)
    return done.stdout.decode("utf-8", "replace")


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the page is not tried in a browser")


def title_of(dom: str) -> str:
    return dom.partition("<title>")[2].partition("</title>")[0]


@needs_browser
def test_a_browser_runs_and_fetches_nothing(
    page: Path, server: Counter, tmp_path: Path, fault_log: FaultLog
) -> None:
    server.paths.clear()
    dom = browse(page, tmp_path / "profile", "--dump-dom")
    assert title_of(dom) == TITLE
    assert dom.count("<script") == 0
    assert dom.count("<iframe") == dom.count("<object") == dom.count("<form") == 0
    assert server.paths == []
    number = len(page_payloads(server.url))
    fault_log(
        "an attack in an answer, question, name, recipe or command of a report",
        "text; 0 requests",
        SURVIVED,
        number,
    )


@needs_browser
@pytest.mark.parametrize("policed", [False, True])
def test_the_browser_would_have_run_them(
    policed: bool, server: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same payloads in a page without escapes are run and fetched; the policy alone stops them too."""
    server.paths.clear()
    policy = next(line for line in template().splitlines() if "Content-Security-Policy" in line)
    head = f"{policy if policed else ''}<title>{TITLE}</title>"
    js = f"document.title='PWNED';fetch('{server.url}/ran')"
    body = f"<img src=x onerror=\"{js}\"><script>{js}</script><img src='{server.url}/img'>"
    target = tmp_path / "page.html"
    target.write_text(f"<!doctype html><html><head>{head}</head><body>{body}", encoding="utf-8")
    dom = browse(target, tmp_path / "profile", "--dump-dom")
    assert title_of(dom) == (TITLE if policed else "PWNED")
    assert bool(server.paths) is not policed


@needs_browser
def test_the_page_keeps_its_layout(page: Path, tmp_path: Path, fault_log: FaultLog) -> None:
    """Nothing is wider than the window, whatever models say: the picture's right edge is the background."""
    target = tmp_path / "page.png"
    browse(
        page, tmp_path / "profile", f"--screenshot={target}", "--window-size=1280,4000", "--hide-scrollbars"
    )
    with Image.open(target) as picture:
        image = picture.convert("RGB")
    assert image.size == (1280, 4000)
    background = image.getpixel((2, 2))
    edges = [image.getpixel((x, y)) for x in (3, 1276) for y in range(0, 4000, 10)]
    assert edges.count(background) == len(edges)
    fault_log("huge and turned texts in a report", "the layout holds", SURVIVED, len(HUGE) + len(STEERING))


def test_the_page_holds_no_markup_of_strangers(page: Path, server: Counter) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(MARKUP) + len(STEERING) + len(HUGE) >= 100
    assert "<script" not in text.lower()
    assert text.count("<meta http-equiv") == 1, "the policy is the only one"
    assert "&lt;script&gt;" in text
    assert not any(letter in text for letter in "\x00\x1b\x9b\u202e\u2066\u200b")
    assert len(text) < 2_000_000


def test_reports_name_no_home(page: Path) -> None:
    for file in (page, page.parent / "results.json"):
        text = file.read_text(encoding="utf-8")
        assert str(Path.home()) + "/" not in text
        assert str(page.parent) not in text


@functools.cache
def template() -> str:
    """The report's template."""
    return (report.TEMPLATES / "report.html.j2").read_text(encoding="utf-8")


def test_only_our_own_drawings_are_taken_as_markup() -> None:
    marked = [line.strip() for line in template().splitlines() if "|safe" in line or "autoescape" in line]
    assert len(marked) == 2
    assert all("plane|safe" in line or "losses|safe" in line for line in marked)
