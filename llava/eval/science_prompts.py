"""ScienceQA's problems as prompts and targets, in the shapes of its authors (Lu et al. 2022).

A prompt format such as `QCM-LEA` names the parts before and behind the dash: Question, Context, Multiple
choices, Lecture, Explanation, Answer, and P for parts under headings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llava.errors import UsageError
from llava.eval.metrics.science_qa import LETTERS
from llava.eval.science_files import ScienceProblem

BECAUSE = "BECAUSE:"

PROMPTS = {
    "CQM": "Context: {context}\nQuestion: {question}\nOptions: {choices}\n",
    "QCM": "{question}\nContext: {context}\nOptions: {choices}\n",
    "QCML": "{question}\nContext: {context}\nOptions: {choices}\nBECAUSE: {lecture}\n",
    "QCME": "{question}\nContext: {context}\nOptions: {choices}\nBECAUSE: {solution}\n",
    "QCMLE": "{question}\nContext: {context}\nOptions: {choices}\nBECAUSE: {lecture} {solution}\n",
    "QCLM": "{question}\nContext: {context}\nBECAUSE: {lecture}\nOptions: {choices}\n",
    "QCEM": "{question}\nContext: {context}\nBECAUSE: {solution}\nOptions: {choices}\n",
    "QCLEM": "{question}\nContext: {context}\nBECAUSE: {lecture} {solution}\nOptions: {choices}\n",
}

TARGETS = {
    "A": "The answer is {answer}.",
    "AL": "The answer is {answer}. BECAUSE: {solution}",
    "AE": "The answer is {answer}. BECAUSE: {lecture}",
    "ALE": "The answer is {answer}. BECAUSE: {lecture} {solution}",
    "AEL": "The answer is {answer}. BECAUSE: {solution} {lecture}",
    "LA": "{lecture} The answer is {answer}.",
    "EA": "{solution} The answer is {answer}.",
    "LEA": "{lecture} {solution} The answer is {answer}.",
    "ELA": "{solution} {lecture} The answer is {answer}.",
    "LEPA": "{headed}###\nANSWER: {answer}.",
}
"""AL holds the solution and AE the lecture: so the authors' published data have it."""


@dataclass(frozen=True)
class PromptFormat:
    """What stands in the prompt and in the target."""

    prompt: str
    target: str


def parse_format(name: str) -> PromptFormat:
    """`QCM-LEA` to templates; `UsageError` lists the known parts."""
    before, dash, behind = name.partition("-")
    if not dash or before not in PROMPTS or behind not in TARGETS:
        raise UsageError(
            f"unknown prompt format {name!r}; before the dash stands one of {', '.join(PROMPTS)}, behind it "
            f"one of {', '.join(TARGETS)}."
        )
    return PromptFormat(PROMPTS[before], TARGETS[behind])


def prompt_and_target(
    problem: ScienceProblem, prompt_format: PromptFormat, letters: Sequence[str] = LETTERS
) -> tuple[str, str]:
    """The texts of one problem, without the picture's mark. `UsageError` for more choices than letters."""
    if len(problem.choices) > len(letters):
        raise UsageError(
            f"problem {problem.problem_id} has {len(problem.choices)} choices; {len(letters)} have letters."
        )
    choices = zip(letters, problem.choices, strict=False)
    headed = "".join(
        f"{heading}: {text}\n"
        for heading, text in (("LECTURE", problem.lecture), ("SOLUTION", problem.solution))
        if text.strip()
    )
    parts = {
        "question": problem.question,
        "context": problem.hint.strip() or "N/A",
        "choices": " ".join(f"({letter}) {text}" for letter, text in choices),
        "lecture": problem.lecture,
        "solution": problem.solution,
        "answer": letters[problem.answer],
        "headed": headed,
    }
    return tidy(prompt_format.prompt.format(**parts)), tidy_target(prompt_format.target.format(**parts))


def tidy(text: str) -> str:
    """Two blanks are one; a last `BECAUSE:` that nothing follows is left out."""
    text = text.replace("  ", " ").strip()
    return text.removesuffix(BECAUSE).strip() if text.endswith(BECAUSE) else text


def tidy_target(text: str) -> str:
    """The same; where the first parts are empty, one blank stays in front, as in the published data."""
    return tidy(f"Answer: {text}").removeprefix("Answer: ")


def conversation(problem: ScienceProblem, prompt_format: PromptFormat) -> dict[str, object]:
    """A training sample: id, image if there is one, and a conversation of two turns."""
    prompt, target = prompt_and_target(problem, prompt_format)
    turns = [
        {"from": "human", "value": prompt if problem.image is None else f"{prompt}\n<image>"},
        {"from": "gpt", "value": target},
    ]
    return {"id": problem.problem_id, **image_of(problem), "conversations": turns}


def instruction(problem: ScienceProblem, prompt_format: PromptFormat) -> dict[str, object]:
    """The same as id, image, instruction and output."""
    prompt, target = prompt_and_target(problem, prompt_format)
    text = prompt if problem.image is None else f"{prompt}\n<image>"
    return {"id": problem.problem_id, **image_of(problem), "instruction": text, "output": target}


def image_of(problem: ScienceProblem) -> dict[str, str]:
    """Where the picture lies below the folder of the pictures, if there is one."""
    return {} if problem.image is None else {"image": f"{problem.problem_id}/{problem.image}"}
