"""The classes that other people's evaluation code imports from the original, over `metrics/vqa_text.py`.

Predictions are dictionaries with `pred_answer` (a text) and `gt_answers` (a list of texts).
"""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any

from llava.errors import UsageError
from llava.eval.metrics.vqa_text import anls, answer_scores, matches_any, normalise_answer

Prediction = Mapping[str, Any]


class EvalAIAnswerProcessor:
    """Called with an answer, gives it as the VQA server compares it."""

    def __call__(self, item: str) -> str:
        return normalise_answer(item)


def mean(scores: Iterable[float]) -> float:
    """The mean, exact whatever the order; `UsageError` of nothing."""
    values = list(scores)
    if not values:
        raise UsageError("there are no predictions to score; give at least one.")
    return fsum(values) / len(values)


class TextVQAAccuracyEvaluator:
    """Mean soft score against the answers of people, 10 per question in the benchmarks."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Prediction]) -> float:
        """0 to 1. `ValueError` for a question with fewer than two answers of people."""
        return mean(
            answer_scores(entry["gt_answers"]).get(self.answer_processor(entry["pred_answer"]), 0.0)
            for entry in pred_list
        )


class STVQAAccuracyEvaluator:
    """Share of answers that are one of the true ones after normalisation."""

    def __init__(self) -> None:
        self.answer_processor = EvalAIAnswerProcessor()

    def eval_pred_list(self, pred_list: Sequence[Prediction]) -> float:
        """0 to 1."""
        return mean(float(matches_any(entry["pred_answer"], entry["gt_answers"])) for entry in pred_list)


class STVQAANLSEvaluator:
    """Mean similarity to the nearest true answer (ANLS)."""

    def get_anls(self, s1: str, s2: str) -> float:
        """Of one answer and one true answer: 0, or 0.5 to 1."""
        return anls(s1, [s2])

    def eval_pred_list(self, pred_list: Sequence[Prediction]) -> float:
        """0 to 1."""
        return mean(anls(entry["pred_answer"], entry["gt_answers"]) for entry in pred_list)
