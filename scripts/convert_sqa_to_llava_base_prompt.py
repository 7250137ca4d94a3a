"""ScienceQA's prompts under the original's name, for code that imports it from this folder.

from convert_sqa_to_llava_base_prompt import build_prompt_chatbot
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llava.eval.metrics.science_qa import LETTERS
from llava.eval.science_files import problem_of
from llava.eval.science_prompts import parse_format, prompt_and_target
from llava.records import Problems


def build_prompt_chatbot(
    problems: Mapping[str, object],
    shot_qids: Iterable[str],
    prompt_format: str,
    use_caption: bool = False,
    options: Sequence[str] = LETTERS,
    is_test: bool = False,
) -> dict[str, tuple[str, str]]:
    """Problem id -> (prompt, target), with `Question: ` and `Answer: ` in front as in the original.

    `problems`: the content of problems.json; `options`: the letters; `use_caption`: the picture's caption
    joins the context; `is_test`: the target is only `Answer:`.
    Raises `UsageError` for an unknown format or a broken problem.
    """
    parsed, complaints = parse_format(prompt_format), Problems(Path("problems.json"))
    found = [problem_of(name, problems.get(name), complaints) for name in shot_qids]
    complaints.raise_any()
    examples = {}
    for problem in found:
        assert problem is not None
        if use_caption:
            problem = replace(problem, hint=f"{problem.hint} {problem.caption}".strip())
        prompt, target = prompt_and_target(problem, parsed, options)
        start = "Question: " if prompt_format.startswith("Q") else ""
        examples[problem.problem_id] = (f"{start}{prompt}", "Answer:" if is_test else f"Answer: {target}")
    return examples
