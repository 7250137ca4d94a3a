"""Reviews by a judge model: scores in texts, means in any order, files that are chosen or refused."""

from pathlib import Path

import pytest

from llava.eval import summarize_gpt_review
from llava.eval.metrics.gpt_review import FAILED, Review, parse_score, summarise
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines


def reviews() -> list[dict]:
    """Twelve reviews in two categories."""
    return [
        {"question_id": k, "tuple": [8.5, 5 + k % 4 + 0.1], "category": ("conv", "detail")[k % 2]}
        for k in range(12)
    ]


def test_no_order_of_lines_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    for rows in orders(reviews()):
        path = write_lines(rows, tmp_path / "mine.jsonl")
        summarize_gpt_review.main(["-f", str(path)])
        printed.add(capsys.readouterr().out)
    assert set(map(before_evidence, printed)) == {
        "mine\nall 77.6 85.0 66.0\nconv 71.8 85.0 61.0\ndetail 83.5 85.0 71.0\n" + "=" * 33 + "\n"
    }


def test_reviews_without_scores_are_not_averaged(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    rows = [*reviews(), {"question_id": 12, "tuple": [-1, -1], "category": "conv"}]
    summarize_gpt_review.main(["-f", str(write_lines(rows, tmp_path / "mine.jsonl"))])
    assert "1 review has no scores, first 12; left out of the means" in caplog.text
    assert "all 77.6 85.0 66.0" in capsys.readouterr().out


def test_broken_reviews_are_told_together(tmp_path: Path, refusal: Failing) -> None:
    rows = [
        {"question_id": 0, "tuple": [1]}, {"question_id": 1}, {"tuple": [1, 2]},
        {"question_id": 3, "score": "8 9"},
        {"question_id": 4, "tuple": [1, 2], "category": 3}, {"question_id": 5, "tuple": [1, 2]},
        {"question_id": 5, "tuple": [1, 3]}, 7,
    ]  # fmt: skip
    told = refusal(summarize_gpt_review.main, "-f", write_lines(rows, tmp_path / "mine.jsonl"))
    for text in (
        "7 problems",
        "line 1, tuple: found [1]; a list of two scores was wanted",
        "line 2, tuple: found none",
        "line 3, question_id: is missing",
        "line 4, tuple: found '8 9'",
        "line 5, category: found a number",
        "1 question is reviewed twice, first 5",
        "line 8: found a number",
    ):
        assert text in told


def test_files_are_chosen_by_name(
    tmp_path: Path, refusal: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "judged"
    for name in ("gpt4_text_a", "review_b_0613", "reviews_c", "other"):
        write_lines(reviews(), folder / f"{name}.jsonl")
    (folder / "review_notes.txt").write_text("x", encoding="utf-8")

    def names(*flags: str) -> list[str]:
        summarize_gpt_review.main(list(flags))
        return [line for line in capsys.readouterr().out.splitlines() if " " not in line and "=" not in line]

    assert names("-d", str(folder)) == ["a", "review_b_0613", "reviews_c"]
    assert names("-d", str(folder), "-v", "0613") == ["review_b_0613"]
    assert names("-d", str(folder), "-v", "0314") == ["a", "reviews_c"]
    assert names("-d", str(folder), "-s", "review", "c") == ["reviews_c"]
    assert names("-d", str(folder), "-f", "other.jsonl") == ["other"]
    assert names("-d", str(folder.rename(tmp_path / "all_reviews"))) == [
        "a",
        "other",
        "review_b_0613",
        "reviews_c",
    ]
    assert "none of 4 review files is chosen" in refusal(
        summarize_gpt_review.main, "-d", tmp_path / "all_reviews", "-s", "zzz"
    )
    assert "--files, or their folder with --dir" in refusal(summarize_gpt_review.main)
    assert "is no folder" in refusal(summarize_gpt_review.main, "-d", folder)
    assert "does not exist" in refusal(summarize_gpt_review.main, "-f", tmp_path / "none.jsonl")


def test_ignored_questions_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(reviews(), tmp_path / "mine.jsonl")
    summarize_gpt_review.main(["-f", str(path), "-i", *(str(k) for k in range(1, 12))])
    assert capsys.readouterr().out.splitlines()[:3] == ["mine", "all 60.0 85.0 51.0", "conv 60.0 85.0 51.0"]


def test_means_are_rounded_before_they_are_divided() -> None:
    """As in the published summaries; without that the first number is 67.6."""
    pairs = [(5, 8), (2, 2), (9, 1), (2, 4), (3, 1), (5, 1), (8, 6)]
    reviews = [Review(str(k), (float(one), float(two))) for k, (one, two) in enumerate(pairs)]
    assert "all 67.7 48.6 32.9\n" in summarise("x", reviews)


def test_a_reference_of_zero_has_no_relative_score() -> None:
    assert "all nan 0.0 50.0" in summarise("x", [Review("1", (0.0, 5.0))])


@pytest.mark.parametrize(
    ("review", "scores"),
    [
        ("8 9\nbecause", (8.0, 9.0)), ("8, 9", (8.0, 9.0)), ("8 , 9", (8.0, 9.0)), ("[8, 9]", FAILED),
        ("(8.5,9)", (8.5, 9.0)), ("8 9 10", FAILED), ("8", FAILED), ("", FAILED), ("eight 9", FAILED),
        ("\n8 9", FAILED), ("-1 -1", FAILED), ("8/10 9/10", FAILED), ("8\t9", (8.0, 9.0)), ("nan 8", FAILED),
    ],
)  # fmt: skip
def test_scores_of_reviews(review: str, scores: tuple[float, float]) -> None:
    assert parse_score(review) == scores
