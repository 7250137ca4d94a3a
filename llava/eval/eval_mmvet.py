"""MM-Vet: a judge model's mark of each answer, and the mean of all, per capability and per combination.

    python -m llava.eval.eval_mmvet --mm-vet-file mm-vet.json --result-file results/mine.json \\
        --output grades/mine.json

The judge's prompt is our own; give the benchmark's with --prompt for figures to compare with published ones.
The server is an OpenAI-compatible one, by default OpenAI's (see judge_flags).
"""

import hashlib
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import PARTIAL, UsageError, exit_on_usage_error
from llava.eval.answer_files import coverage_line, wanted_path, warn_missing, write_json
from llava.eval.endpoint import Completion
from llava.eval.evidence import add_results_flag, figure, publish
from llava.eval.judge import Verdicts, judge_all
from llava.eval.judge_flags import add_judge_flags, asking_of, check_judge_flags, open_judge, price_of
from llava.eval.judgements import judgements_beside, refuse_foreign
from llava.eval.kinds import figure_lines
from llava.eval.metrics.judged import Item, kinds_of, parse_mark
from llava.eval.metrics.pairing import compare_ids, tell
from llava.eval.mmvet_files import prompt_of, read_items, read_prompt, read_results
from llava.eval.results_file import Figure
from llava.eval.scored_file import Scored
from llava.terminal import note, say

SYSTEM = "You mark answers exactly, and reply with the mark alone."
TOTAL = "total"
NO_MARK = "answer has no mark|answers have no mark"


@dataclass(frozen=True)
class Marked:
    """An item, what the judge said of its answer, and the mark; both None where there is none."""

    item: Item
    content: str | None
    mark: float | None
    missing: bool

    def scored(self) -> Scored:
        """Its row; a missing answer earns nothing."""
        parsed = None if self.mark is None else f"{self.mark:g}"
        value = 0.0 if self.mark is None else self.mark
        return Scored(
            self.item.question_id, value, self.item.image, self.item.combination, parsed, self.missing
        )


def parser() -> CommandParser:
    """The flags."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--mm-vet-file", help="the benchmark's mm-vet.json")
    add("--result-file", help="JSON: id to answer, as scripts/convert_mmvet_for_eval.py writes it")
    add("--answers-file", type=Path, help="the answers that were converted, to say of which run they are")
    add("--output", help="JSON to write: the marks, in the form of the benchmark's evaluation")
    add("--prompt", type=Path, help="text before the case to judge, instead of our own")
    add_judge_flags(options, temperature=0.0, max_tokens=64)
    add_results_flag(options)
    return options


def mark_all(
    items: Sequence[Item], answers: Mapping[str, str], prompt: str, options: Namespace, output: Path
) -> tuple[list[Marked], Verdicts]:
    """Every item with its mark, and what it took."""
    prompts = {
        item.question_id: prompt_of(item, answers[item.question_id], prompt)
        for item in items
        if item.question_id in answers
    }
    with judgements_beside(output) as kept:
        verdicts = judge_all(
            list(prompts.values()),
            asking_of(options, SYSTEM),
            kept,
            open_endpoint=lambda: open_judge(options),
            is_readable=lambda text: parse_mark(text) is not None,
            concurrency=options.concurrency,
        )
    marked = []
    for item in items:
        said = verdicts.said.get(prompts.get(item.question_id, ""))
        content = said.text if isinstance(said, Completion) else None
        mark = None if content is None else parse_mark(content)
        marked.append(Marked(item, content, mark, item.question_id not in answers))
    return marked, verdicts


def figures_of(marked: Sequence[Marked]) -> dict[str, Figure]:
    """The mean of all, and of each kind."""
    rows = {one.item.question_id: one.scored() for one in marked}
    groups = kinds_of([one.item for one in marked])
    parts = {name: figure([rows[item.question_id] for item in items]) for name, items in groups.items()}
    return {TOTAL: figure(list(rows.values()))} | parts


def grades(marked: Sequence[Marked], model: str) -> dict[str, object]:
    """What the benchmark's own evaluation writes: lists, since it can ask several times."""
    judged = [one for one in marked if one.content is not None]
    return {
        one.item.question_id: {"model": [model], "content": [one.content], "score": [one.mark]}
        for one in judged
    }


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Judge what is not judged yet, and print the means; `SystemExit` (3) when the judge refused some."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse(argv)
    check_judge_flags(options)
    truth = wanted_path(options.mm_vet_file, "--mm-vet-file")
    path = wanted_path(options.result_file, "--result-file")
    output = wanted_path(options.output, "--output")
    refuse_foreign(output)
    items, prompt = read_items(truth), read_prompt(options.prompt)
    answers = read_results(path, items)
    warn_missing(compare_ids((item.question_id for item in items), answers), path, "they earn nothing")
    marked, verdicts = mark_all(items, answers, prompt, options, output)
    write_json(grades(marked, options.judge_model), output, indent=2)
    say(verdicts.cost_line(options.judge_model, price_of(options)))
    counted = [one for one in marked if one.mark is not None or one.missing]
    if not counted:
        raise UsageError(f"none of {len(marked)} answers has a readable mark; look at {output}.")
    figures = figures_of(counted)
    say(figure_lines(figures) + coverage_line(len(counted), len(marked), "answers have a mark"))
    unread = [one.item.question_id for one in marked if one.mark is None and not one.missing]
    publish(
        "mmvet",
        figures,
        TOTAL,
        [one.scored() for one in counted],
        answers=path if options.answers_file is None else options.answers_file,
        truth=[truth],
        results_dir=options.results_dir,
        extra={
            "judge": options.judge_model,
            "judge_prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
            "without_mark": unread,
        },
    )
    end(unread, verdicts)


def end(unread: Sequence[str], verdicts: Verdicts) -> None:
    """Tell what has no mark."""
    if unread:
        note(f"{tell(unread, NO_MARK)}; left out of all means, the same command asks again.\n")
    for failure in list(verdicts.failures().values())[:1]:
        note(f"error: {failure.reason}\nMend the cause and give the same command again.\n")
        raise SystemExit(PARTIAL)


if __name__ == "__main__":
    main()
