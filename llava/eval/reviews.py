"""Pairs of answers for a judge to compare, as the original's three programs ask for them.

A prompt holds what the picture shows (where the program has it), the question, both answers, and the rule of
the question's category, which says how to judge. All is paired by question_id and picture, never by line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.eval.answer_files import Entry, read_answers, read_entries, refuse_repeated, refuse_unknown
from llava.eval.metrics.pairing import TWICE, compare_ids, repeated_ids, tell
from llava.records import DataError, Problems, kind_of, read_object, shorten

QUESTIONS = 'question file (JSON lines with "question_id", "text" and "category")'
CONTEXTS = 'context file (JSON lines with "image" and what it shows)'
RULES = 'rule file (JSON: category to {"prompt", "role"})'
DEFAULT_RULE = "default"


@dataclass(frozen=True)
class Rule:
    """How answers of a category are judged; `role` is how the judge calls who gave them."""

    role: str
    prompt: str


@dataclass(frozen=True)
class Form:
    """What one of the programs asks with.

    Attributes:
        describe: a context row to the text about the picture; `ValueError` says what the row lacks. None for
            a program without contexts.
        prefix: stands before a question's category in the rule file and the reviews.
        has_default: whether categories without a rule have that of `default`.
    """

    describe: Callable[[Mapping[str, object]], str] | None = None
    prefix: str = ""
    has_default: bool = False


@dataclass(frozen=True)
class Answer:
    """What one model said."""

    answer_id: str | int
    text: str


@dataclass(frozen=True)
class Pair:
    """A question with the prompt about its two answers; `lacking` says which answer there is not, then."""

    question_id: str | int
    category: str
    answers: tuple[Answer | None, Answer | None]
    prompt: str

    @property
    def lacking(self) -> str | None:
        """Why there is nothing to judge; None when there is."""
        names = [f"answer {number}" for number, one in enumerate(self.answers, start=1) if one is None]
        return f"{' and '.join(names)} is missing" if names else None


def caption_of(context: Mapping[str, object]) -> str:
    """LLaVA-Bench: `caption`, a text or a list of them."""
    return joined(context, "caption")


def captions_and_boxes(context: Mapping[str, object]) -> str:
    """LLaVA's 80 pictures of COCO: `captions`, and one line per object of `instances`."""
    instances = context.get("instances")
    if not isinstance(instances, list) or not all(
        isinstance(one, dict) and {"category", "bbox"} <= one.keys() for one in instances
    ):
        raise ValueError('instances: a list of {"category", "bbox"} was wanted')
    boxes = "\n".join(f"{one['category']}: {one['bbox']}" for one in instances)
    return f"{joined(context, 'captions')}\n\n{boxes}"


def joined(context: Mapping[str, object], key: str) -> str:
    """A text, or a list of texts line by line."""
    value = context.get(key)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key}: found {shorten(value)}; a text or a list of texts was wanted")
    return "\n".join(texts)


def prompt_of(question: str, texts: Sequence[str], rule: Rule, context: str | None) -> str:
    """What the judge is sent."""
    parts = [] if context is None else [f"[Context]\n{context}"]
    parts.append(f"[Question]\n{question}")
    for number, text in enumerate(texts, start=1):
        parts.append(f"[{rule.role} {number}]\n{text}\n\n[End of {rule.role} {number}]")
    return "\n\n".join([*parts, f"[System]\n{rule.prompt}"]) + "\n\n"


def read_rules(path: Path) -> dict[str, Rule]:
    """Category -> rule. `DataError` lists what is wrong with the file."""
    problems, rules = Problems(path), {}
    for category, value in read_object(path, RULES).items():
        if not isinstance(value, dict):
            problems.add(category, f"found {kind_of(value)}; an object was wanted")
            continue
        role, prompt = value.get("role"), value.get("prompt")
        if isinstance(role, str) and isinstance(prompt, str):
            rules[category] = Rule(role, prompt)
            continue
        for key, found in (("role", role), ("prompt", prompt)):
            if not isinstance(found, str):
                problems.add(f"{category}, {key}", f"found {kind_of(found)}; a text was wanted")
    problems.raise_any()
    return rules


def read_contexts(path: Path, describe: Callable[[Mapping[str, object]], str]) -> dict[str, str]:
    """Picture -> what it shows. `DataError` lists what is wrong with the file."""
    problems, contexts = Problems(path), {}
    entries = read_entries(path, CONTEXTS, ("image",))
    for entry in entries:
        try:
            contexts[entry.text("image")] = describe(entry.fields)
        except ValueError as error:
            problems.add(entry.place, str(error))
    repeated = repeated_ids(entry.text("image") for entry in entries)
    if repeated:
        problems.add(
            "image", f"{tell(repeated, 'picture stands twice|pictures stand twice')}; keep one row of each"
        )
    problems.raise_any()
    return contexts


def read_reviewed(path: Path, questions: Sequence[Entry]) -> dict[str, Answer]:
    """Question id -> answer. `DataError` for repeated answers and those to other questions."""
    entries = read_answers(path)
    refuse_repeated(entries, path)
    asked = (entry.question_id for entry in questions)
    refuse_unknown(compare_ids(asked, (entry.question_id for entry in entries)), path)
    return {entry.question_id: Answer(answer_id(entry), entry.text()) for entry in entries}


def answer_id(entry: Entry) -> str | int:
    """A line's answer_id, its question_id where it has none."""
    found = entry.fields.get("answer_id")
    return found if isinstance(found, str | int) else entry.question_id


@dataclass(frozen=True)
class Sources:
    """The files that are compared."""

    question: Path
    answers: tuple[Path, Path]
    rule: Path
    context: Path | None = None


def read_pairs(sources: Sources, form: Form) -> list[Pair]:
    """All questions in the order of their file. `DataError` lists what does not belong together."""
    wanted = ("question_id", "text", "category", *(("image",) if form.describe else ()))
    questions = read_entries(sources.question, QUESTIONS, wanted)
    refuse_repeated(questions, sources.question, TWICE)
    answers = [read_reviewed(path, questions) for path in sources.answers]
    rules = rules_of(questions, form, sources)
    contexts = contexts_of(questions, form, sources)
    pairs = []
    for entry in questions:
        first, second = (one.get(entry.question_id) for one in answers)
        texts = ["" if one is None else one.text for one in (first, second)]
        context = None if contexts is None else contexts[entry.text("image")]
        category = form.prefix + entry.text("category")
        prompt = prompt_of(entry.text(), texts, rules[category], context)
        pairs.append(Pair(entry.fields["question_id"], category, (first, second), prompt))  # type: ignore[arg-type]
    return pairs


def rules_of(questions: Sequence[Entry], form: Form, sources: Sources) -> dict[str, Rule]:
    """Category -> rule, of all categories asked. `DataError` for those without one."""
    rules = read_rules(sources.rule)
    asked = sorted({form.prefix + entry.text("category") for entry in questions})
    if form.has_default and DEFAULT_RULE in rules:
        return {category: rules.get(category, rules[DEFAULT_RULE]) for category in asked}
    lacking = [category for category in asked if category not in rules]
    if lacking:
        known = ", ".join(rules)
        raise DataError(f"{sources.rule} has no rule for {', '.join(lacking)}; it has {known}. Add them.")
    return {category: rules[category] for category in asked}


def contexts_of(questions: Sequence[Entry], form: Form, sources: Sources) -> dict[str, str] | None:
    """Picture -> what it shows, for all pictures asked about; None for a form without contexts."""
    if form.describe is None:
        return None
    assert sources.context is not None, "a form with contexts has their file"
    contexts = read_contexts(sources.context, form.describe)
    lacking = [
        name for name in dict.fromkeys(entry.text("image") for entry in questions) if name not in contexts
    ]
    if lacking:
        told = tell(lacking, "picture has no context|pictures have no context")
        raise DataError(f"{sources.context}: {told}; give the contexts of these very questions.")
    return contexts
