"""Command lines of the original: every flag of its answering programs parses, and defaults are the recorded
ones or departures on purpose.
"""

import pytest

from llava.command_line import CommandParser
from llava.errors import UsageError
from llava.eval import (
    eval_gpt_review,
    eval_gpt_review_bench,
    eval_gpt_review_visual,
    model_vqa,
    model_vqa_loader,
    model_vqa_mmbench,
    model_vqa_qbench,
    model_vqa_science,
    run_llava,
)
from tests.parity.golden import golden

PROGRAMS: dict[str, list[dict]] = golden("cli/eval_flags.json")["programs"]
ANSWERING = {
    "llava.eval.model_vqa_loader": model_vqa_loader.parser,
    "llava.eval.model_vqa": model_vqa.parser,
    "llava.eval.model_vqa_science": model_vqa_science.parser,
    "llava.eval.model_vqa_mmbench": model_vqa_mmbench.parser,
    "llava.eval.run_llava": run_llava.parser,
}
JUDGING = {
    "llava.eval.eval_gpt_review": eval_gpt_review.parser,
    "llava.eval.eval_gpt_review_bench": eval_gpt_review_bench.parser,
    "llava.eval.eval_gpt_review_visual": eval_gpt_review_visual.parser,
}
HELD = ANSWERING | JUDGING
SCORES = "scores answers, does not give them"
CONVERTS = "rewrites an answers file for a benchmark's server"
GPT = "asks a model behind OpenAI's interface of 2023, which is gone"
WEIGHTS = "rewrites a checkpoint, asks nothing"
NOT_HELD_HERE = {
    "llava.eval.model_qa": "text-only answers of a model that is no LLaVA",
    "llava.eval.eval_pope": SCORES,
    "llava.eval.eval_textvqa": SCORES,
    "llava.eval.eval_science_qa": SCORES,
    "llava.eval.eval_science_qa_gpt4": SCORES,
    "llava.eval.eval_science_qa_gpt4_requery": SCORES,
    "llava.eval.summarize_gpt_review": SCORES,
    "llava.eval.qa_baseline_gpt35": GPT,
    "llava.serve.cli": "a chat, not a program that answers and ends",
    "llava.model.consolidate": WEIGHTS,
    "llava.model.apply_delta": WEIGHTS,
    "llava.model.make_delta": WEIGHTS,
    "scripts/convert_gqa_for_eval.py": CONVERTS,
    "scripts/convert_mmbench_for_submission.py": CONVERTS,
    "scripts/convert_mmvet_for_eval.py": CONVERTS,
    "scripts/convert_seed_for_submission.py": CONVERTS,
    "scripts/convert_vizwiz_for_submission.py": CONVERTS,
    "scripts/convert_vqav2_for_submission.py": CONVERTS,
    "scripts/extract_mm_projector.py": WEIGHTS,
    "scripts/merge_lora_weights.py": WEIGHTS,
}
"""Programs whose flags this file does not look at, and why."""

REQUIRED = object()
DEPARTURES = {
    "model_path": (REQUIRED, "facebook/opt-350m is no LLaVA, so nobody meant it"),
    "temperature": (0.0, "a score must be repeatable"),
    "conv_mode": (None, "the template that the checkpoint was tuned with"),
}
"""Defaults that are not the recorded ones, and why."""
SAMPLES = {"str": "cn", "int": "3", "float": "0.5", "flag": None}
KINDS = {"str": str, "int": int, "float": float, "flag": bool}
FLAGS = [
    pytest.param(program, flag, id=f"{program.rpartition('.')[2]}{flag['flags'][0]}")
    for program in HELD
    for flag in PROGRAMS[program]
]


def needed(program: str) -> list[str]:
    """What a program cannot do without."""
    if program in JUDGING:
        return []
    names = ["--model-path", "m"]
    return [*names, "--image-file", "i", "--query", "q"] if program == "llava.eval.run_llava" else names


def parser_of(program: str) -> CommandParser:
    """A program's parser."""
    return HELD[program]()


def test_every_program_of_the_original_is_accounted_for() -> None:
    for program, reason in NOT_HELD_HERE.items():
        print(f"{program}: {reason}")  # noqa: T201
    assert not HELD.keys() & NOT_HELD_HERE.keys()
    assert HELD.keys() | NOT_HELD_HERE.keys() == PROGRAMS.keys()


@pytest.mark.parametrize(("program", "flag"), FLAGS)
def test_a_flag_parses_with_its_type(program: str, flag: dict) -> None:
    value = SAMPLES[flag["type"]]
    for spelling in flag["flags"]:
        given = [spelling] if value is None else [spelling, value]
        found = getattr(parser_of(program).parse([*needed(program), *given]), flag["dest"])
        if flag["nargs"] == "+":
            (found,) = found
        assert type(found) is KINDS[flag["type"]]
        assert found == KINDS[flag["type"]](True if value is None else value)


@pytest.mark.parametrize(("program", "flag"), FLAGS)
def test_a_default_is_recorded_or_a_departure(program: str, flag: dict) -> None:
    given = needed(program)
    wanted, reason = DEPARTURES.get(flag["dest"], (REQUIRED if flag["required"] else flag["default"], ""))
    if wanted is REQUIRED:
        place = given.index(flag["flags"][0])
        with pytest.raises(UsageError, match=flag["flags"][0]):
            parser_of(program).parse(given[:place] + given[place + 2 :])
    else:
        assert getattr(parser_of(program).parse(given), flag["dest"]) == wanted, reason


def test_departures_are_still_departures() -> None:
    for name in DEPARTURES:
        assert any(
            flag["default"] != DEPARTURES[name][0]
            for program in ANSWERING
            for flag in PROGRAMS[program]
            if flag["dest"] == name
        )


@pytest.mark.parametrize("program", ANSWERING)
def test_all_programs_have_the_same_flags_of_decoding(program: str) -> None:
    """ScienceQA's of the original knows no beams, and only two of them the length of an answer."""
    parsed = vars(parser_of(program).parse(needed(program)))
    assert {"temperature", "top_p", "num_beams", "max_new_tokens", "seed"} <= parsed.keys()
    assert ("batch_size" in parsed) == (program != "llava.eval.run_llava")


@pytest.mark.parametrize(
    ("program", "wanted"),
    [(model_vqa_loader, 128), (model_vqa, 1024), (model_vqa_science, 1024), (model_vqa_mmbench, 1024),
     (run_llava, 512)],
)  # fmt: skip
def test_the_longest_answer_is_the_originals(program: object, wanted: int) -> None:
    """In three programs of the original it is fixed and no flag."""
    assert program.parser().get_default("max_new_tokens") == wanted  # type: ignore[attr-defined]


@pytest.mark.parametrize("script", ["qbench", "qbench_zh"])
def test_flags_of_scripts_whose_program_the_original_lacks(script: str) -> None:
    scripts = {entry["script"]: entry for entry in golden("cli/script_flags.json")["scripts"]}
    (command,) = scripts[f"scripts/v1_5/eval/{script}.sh"]["commands"]
    assert command["program"] == "llava.eval.model_vqa_qbench"
    parsed = vars(model_vqa_qbench.parser().parse([text for flag in command["flags"] for text in flag]))
    for flag, value in command["flags"]:
        name = {"--questions-file": "question_file"}.get(flag, flag.removeprefix("--").replace("-", "_"))
        assert parsed[name] == value
