"""The checking commands of the README and of docs/own_data.md, as they stand there, on a user's folder."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BASE, ROOT, script_environment

PAGES = ("README.md", "docs/own_data.md")
COMMAND = re.compile(r"^python -m (llava\.\w+\.check_\w+)(?:.*\\\n)*.*$", re.MULTILINE)


def documented() -> list[str]:
    """Every checking command of the pages, once."""
    found: dict[str, None] = {}
    for page in PAGES:
        for match in COMMAND.finditer((ROOT / page).read_text(encoding="utf-8")):
            found[match[0]] = None
    return list(found)


@pytest.fixture(scope="module")
def user_folder(lesson: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a checkpoint under the names of the pages."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(lesson / "images", folder / "mine" / "images")
    shutil.copy(lesson / "train.json", folder / "mine" / "train.json")
    shutil.copy(lesson / "questions.jsonl", folder / "questions.jsonl")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "llava-v1.5-7b").symlink_to(BASE)
    return folder


def run_in(folder: Path, command: str) -> subprocess.CompletedProcess:
    """A command of the pages in the user's folder."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=script_environment({"PYTHONPATH": ROOT}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_both_programs_are_documented() -> None:
    names = {match[1] for match in map(COMMAND.match, documented()) if match}
    assert names == {"llava.train.check_data", "llava.eval.check_questions"}


@pytest.mark.parametrize("command", documented())
def test_a_documented_command(command: str, user_folder: Path) -> None:
    result = run_in(user_folder, command)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "0 errors" in result.stdout
    assert ("tokens per row" in result.stdout) == ("--model_name_or_path" in command)


def test_errors_end_with_code_2(user_folder: Path) -> None:
    rows = json.loads((user_folder / "mine" / "train.json").read_text(encoding="utf-8"))
    rows[3]["image"] = "nobody.png"
    del rows[5]["conversations"]
    (user_folder / "mine" / "broken.json").write_text(json.dumps(rows), encoding="utf-8")
    flags = "--data_path mine/broken.json --image_folder mine/images --json"
    result = run_in(user_folder, f"python -m llava.train.check_data {flags}")
    assert result.returncode == 2
    assert not result.stderr
    report = json.loads(result.stdout)
    found = {(kind["kind"], one["row"]) for kind in report["kinds"] for one in kind["findings"]}
    assert found == {("picture missing", 3), ("turns", 5)}


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--data_path mine/train.json --image_folder mine/image", "did you mean mine/images?"),
        ("--data_path mine/train.json --version v9 --max_pixels 0", "--version is 'v9'"),
        ("--data_pat mine/train.json", "did you mean --data_path?"),
        ("--data_path mine/train.json --image_folder mine/images --show_row 99", "--show_row 99"),
    ],
)
def test_wrong_flags_are_told(user_folder: Path, flags: str, part: str) -> None:
    result = run_in(user_folder, f"python -m llava.train.check_data {flags}")
    assert result.returncode == 2
    assert part in result.stderr
    assert "Traceback" not in result.stderr
