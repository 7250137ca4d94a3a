"""MM-Vet's own file and a model's results, and the prompt that its judge gets.

mm-vet.json: {"v1_0": {"imagename": "v1_0.png", "question": "...", "answer": "x<OR>y", "capability": ["ocr"]}}
results: {"v1_0": "what the model said"}, as scripts/convert_mmvet_for_eval.py writes them
"""

from collections.abc import Mapping
from pathlib import Path

from llava.eval.metrics.judged import Item
from llava.eval.metrics.pairing import UNKNOWN, compare_ids, tell
from llava.records import DataError, Problems, kind_of, read_object, read_text

TRUTH = 'benchmark file (JSON: id to {"question", "answer", "capability"})'
RESULTS = "result file (JSON: id to the answer's text)"
PROMPT = "prompt file (text that ends in a table of question, true answer, answer and mark)"
OWN_PROMPT = Path(__file__).with_name("table") / "mmvet.txt"


def read_items(path: Path) -> list[Item]:
    """All questions in the order of the file. `DataError` lists what is wrong with it."""
    problems, items = Problems(path), []
    for name, value in read_object(path, TRUTH).items():
        if not isinstance(value, dict):
            problems.add(name, f"found {kind_of(value)}; an object was wanted")
            continue
        item = item_of(name, value, problems)
        if item is not None:
            items.append(item)
    problems.raise_any()
    if not items:
        raise DataError(f"{path} holds no questions; a {TRUTH} was wanted.")
    return items


def item_of(name: str, value: Mapping[str, object], problems: Problems) -> Item | None:
    """One question, or None when something is wrong with it."""
    question, answer, capabilities = (value.get(key) for key in ("question", "answer", "capability"))
    if not isinstance(question, str):
        problems.add(f"{name}, question", f"found {kind_of(question)}; a text was wanted")
    if not isinstance(answer, str):
        problems.add(f"{name}, answer", f"found {kind_of(answer)}; a text was wanted")
    if not isinstance(capabilities, list) or not all(isinstance(one, str) for one in capabilities):
        problems.add(f"{name}, capability", f"found {kind_of(capabilities)}; an array of texts was wanted")
        return None
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    image = value.get("imagename")
    return Item(name, image if isinstance(image, str) else None, question, answer, tuple(capabilities))


def read_results(path: Path, items: list[Item]) -> dict[str, str]:
    """Question id -> answer. `DataError` for what is no text, and for answers to other questions."""
    problems, answers = Problems(path), {}
    for name, value in read_object(path, RESULTS).items():
        if not isinstance(value, str):
            problems.add(name, f"found {kind_of(value)}; a text was wanted")
            continue
        answers[name] = value
    problems.raise_any()
    unknown = compare_ids((item.question_id for item in items), answers).unknown
    if unknown:
        raise DataError(
            f"{path}: {tell(unknown, UNKNOWN)}; its ids are those of the benchmark's file (v1_0)."
        )
    return answers


def read_prompt(path: Path | None) -> str:
    """The text before the case to judge: the file's, or our own."""
    return read_text(OWN_PROMPT if path is None else path, PROMPT).rstrip("\n")


def prompt_of(item: Item, answer: str, prompt: str) -> str:
    """What the judge is sent: the prompt with a last line for it to complete."""
    truth = item.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return f"{prompt}\n" + " | ".join([item.question, truth, answer, ""])
