"""ScienceQA's problems as LLaVA's training data or questions.

    python scripts/convert_sqa_to_llava.py convert_to_llava --base-dir ScienceQA/data/scienceqa \\
        --prompt-format QCM-LEA --split train

convert_to_llava writes llava_SPLIT_FORMAT.json there, convert_to_jsonl scienceqa_SPLIT_FORMAT.jsonl
(prompt formats: llava/eval/science_prompts.py).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error
from llava.eval.answer_files import write_json, write_text
from llava.eval.science_files import read_problems, read_split
from llava.eval.science_prompts import conversation, instruction, parse_format

FORMATS = {"convert_to_llava": "QCM-LEA", "convert_to_jsonl": "QCM-LEPA"}
"""The two commands and their prompt formats where none is given."""


def parser() -> CommandParser:
    """The original's commands and flags, which were taken with dashes or underscores."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("task", choices=tuple(FORMATS), help="which file to write")
    options.add_argument("--base-dir", "--base_dir", required=True, help="problems.json and pid_splits.json")
    options.add_argument("--split", required=True, help="a split of pid_splits.json")
    options.add_argument(
        "--prompt-format", "--prompt_format", help="such as QCM-LEA (llava), QCM-LEPA (jsonl)"
    )
    return options


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and say how many samples there are."""
    options = parser().parse(argv)
    folder, name = Path(options.base_dir), options.prompt_format or FORMATS[options.task]
    prompt_format = parse_format(name)
    problems = read_split(folder, options.split, read_problems(folder))
    if options.task == "convert_to_llava":
        samples = [conversation(problem, prompt_format) for problem in problems]
        write_json(samples, folder / f"llava_{options.split}_{name}.json", indent=2)
    else:
        rows = [json.dumps(instruction(problem, prompt_format)) + "\n" for problem in problems]
        write_text("".join(rows), folder / f"scienceqa_{options.split}_{name}.jsonl")
    sys.stdout.write(f"Number of samples: {len(problems)}\n")


if __name__ == "__main__":
    main()
