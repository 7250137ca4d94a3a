"""Parts of an answers file become one, with one record of the run, if they belong together."""

import json
from pathlib import Path

import pytest

from llava.eval import merge_answers
from llava.eval.answer_storage import side_file

RUN = {"model_id": "mine", "weights": "a" * 64, "conv_mode": "v1", "temperature": 0.0, "prompt": "p"}


def write_part(file: Path, ids: list[int], **changed: object) -> Path:
    """Answers and what stands beside them."""
    file.write_text("".join(json.dumps({"question_id": name}) + "\n" for name in ids), encoding="utf-8")
    run = RUN | {"questions": {"count": len(ids), "sha256": str(ids)}} | changed
    side_file(file).write_text(json.dumps(run), encoding="utf-8")
    return file


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three parts, the last one without questions."""
    return [write_part(tmp_path / f"m.jsonl.3_{k}", ids) for k, ids in enumerate(([3, 1], [2], []))]


def merge(target: Path, parts: list[Path]) -> None:
    """The command."""
    merge_answers.main(["--answers-file", str(target), *map(str, parts)])


def refused(target: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it refuses."""
    with pytest.raises(SystemExit) as ended:
        merge(target, parts)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_parts_in_order_and_one_record(parts: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "m.jsonl"
    for _ in range(2):  # again, over what is there
        merge(target, parts)
        assert [json.loads(line)["question_id"] for line in target.read_bytes().splitlines()] == [3, 1, 2]
        assert json.loads(side_file(target).read_bytes()) == RUN
    assert all(part.exists() for part in parts), "a rerun takes them up"


def test_versions_may_differ_but_settings_may_not(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "m.jsonl"
    write_part(parts[1], [2], versions={"torch": "9"})
    merge(target, parts)
    before = target.read_bytes()
    write_part(parts[1], [2], conv_mode="plain", temperature=0.5)
    told = refused(target, parts, capsys)
    assert "conv_mode: m.jsonl.3_0 'v1', m.jsonl.3_1 'plain'" in told
    assert "temperature: m.jsonl.3_0 0.0, m.jsonl.3_1 0.5" in told
    for part, ids in zip(parts, ([3], [1], [2]), strict=True):
        write_part(part, ids, weights="b" * 64)
    assert "weights: m.jsonl aaaaaaaaaaaa..., m.jsonl.3_0 bbbbbbbbbbbb..." in refused(target, parts, capsys)
    assert target.read_bytes() == before, "answers of another checkpoint are not overwritten"


def test_parts_that_are_not_whole(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "m.jsonl"
    parts[0].write_bytes(parts[0].read_bytes()[:-3])
    assert "ends in the middle of a line" in refused(target, parts, capsys)
    parts[0].unlink()
    assert "answer that part first" in refused(target, parts, capsys)
    write_part(parts[0], [3, 1])
    side_file(parts[2]).unlink()
    assert "m.jsonl.3_2.run.json does not exist" in refused(target, parts, capsys)
    assert not target.exists()
