"""The report of a check: counts are exact, lists are bounded, odd texts do not break it."""

import json
from pathlib import Path

import pytest

from llava import findings
from llava.findings import ERROR, NOTE, Finding, Report, kind_of_problem


def test_counts_are_exact_where_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "MOST_KEPT", 3)
    report = Report(Path("train.json"))
    for number in range(10):
        report.add(Finding(ERROR, "id", "found null", number, f"row {number}", None, "id"))
    report.add(Finding(NOTE, "answer empty", "it teaches nothing", 1, "row 1", "a", "conversations[1].value"))
    assert (report.count(ERROR), report.count(NOTE)) == (10, 1)
    text = report.as_text(2)
    assert "error: id (10)\n  row 0, id: found null\n  row 1, id: found null\n  and 8 more" in text
    assert text.endswith("10 errors, 1 note: mend the errors (rows are counted from 0, lines from 1).")
    assert "and 7 more" in report.as_text(20), "three of them are kept"
    value = json.loads(report.as_json())
    assert [(kind["count"], len(kind["findings"])) for kind in value["kinds"]] == [(10, 3), (1, 1)]
    assert value["kinds"][1]["findings"][0] == {
        "row": 1,
        "place": "row 1",
        "id": "a",
        "field": "conversations[1].value",
        "message": "it teaches nothing",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("as_json", [False, True])
def test_any_text_can_be_printed(
    as_json: bool, encoding: str, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also half a character, and on a terminal without Unicode."""
    report = Report(Path("train.json"), samples=[("row 0:", "⟦Mü\ud83d⟧")])
    report.add(Finding(NOTE, "id", "found it", 0, "row 0", "\ud83d", "id"))
    with open(1, "w", encoding=encoding, closefd=False) as out:
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(SystemExit) as ended:
            report.print_and_exit(as_json=as_json, shown=1)
    assert ended.value.code == 0
    assert b"ud83d" in capfdbinary.readouterr().out


@pytest.mark.parametrize(
    ("field", "what", "kind"),
    [
        ("image", "'a b.png' is not in images; add the picture", "picture missing"),
        ("image", "'a' leads out of images; put the picture into the folder", "picture outside the folder"),
        ("image", "found a number (3); a file name was wanted", "image field"),
        ("conversations[3].from", "found 'x'; 'human' or 'gpt' was wanted", "roles and their order"),
        ("conversations[3]", "found a text; an object was wanted", "turns"),
        ("conversations[3].value", "found null; a text was wanted", "text of a turn"),
        ("", "found null; an object was wanted", "shape of the row"),
    ],
)
def test_kinds(field: str, what: str, kind: str) -> None:
    assert kind_of_problem(field, what) == kind
