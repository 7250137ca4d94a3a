"""Every recorded run of the original's scoring programs: the same text and files, or a departure with its
reason.
"""

import argparse
import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest

from llava.eval.m4c_evaluator import (
    EvalAIAnswerProcessor,
    STVQAAccuracyEvaluator,
    TextVQAAccuracyEvaluator,
)
from llava.eval.metrics.gpt_review import parse_score
from llava.eval.metrics.vqa_text import answer_scores
from llava.eval.science_files import read_problems, read_split
from llava.eval.science_prompts import conversation, instruction, parse_format
from tests.parity.golden import DATA, golden

ROOT = Path(__file__).resolve().parents[2]
METRICS = DATA / "metrics"
CASES = {case["name"]: case for case in golden("metrics/index.json")["cases"]}
POPE_FLAGS = CASES["pope"]["args"]

DEPARTURES = {
    "pope_all_no": (
        "precision and F1 of a model that never says yes are 0",
        0,
        "Category: random, # samples: 3\nTP\tFP\tTN\tFN\t\n0\t0\t2\t1\nAccuracy: 0.6666666666666666\n"
        "Precision: 0.0\nRecall: 0.0\nF1 score: 0.0\nYes ratio: 0.0\n0.000, 0.667, 0.000, 0.000, 0.000\n"
        "====================================\n",
    ),
    "pope_shuffled": (
        "answers are paired by question_id, not by line: these are all right",
        0,
        "Category: random, # samples: 4\nTP\tFP\tTN\tFN\t\n2\t0\t2\t0\nAccuracy: 1.0\nPrecision: 1.0\n"
        "Recall: 1.0\nF1 score: 1.0\nYes ratio: 0.5\n1.000, 1.000, 1.000, 1.000, 0.500\n"
        "====================================\n",
    ),
    "textvqa_bad_prompt": (
        "a prompt of another shape is scored when a line of it is a question about the picture",
        0,
        "answers\nSamples: 1\nAccuracy: 100.00%\n\n",
    ),
    "vizwiz_missing": (
        "an incomplete upload is refused with the ids that lack an answer",
        2,
        "total results: 11, total split: 12, error_line: 0\n",
    ),
    "seed_zero_correct": (
        "a type without a right answer has 0 %; a kind of data without questions has no number",
        0,
        "Scene Understanding: 100.00%\nInstance Identity: 0.00%\nTotal accuracy: 50.00%\n"
        "image accuracy: 50.00%\nvideo accuracy: nan%\n",
    ),
}
"""Case -> why, exit code, stdout."""

COVERAGE = {
    "textvqa_dir": ["40.00% (4 of 10 questions have an answer)"],
    "textvqa_bad_prompt": ["10.00% (1 of 10 questions have an answer)"],
    "scienceqa_test": ["94.74% (18 of 19 questions have an answer)"],
    "scienceqa_minitest": ["75.00% (3 of 4 questions have an answer)"],
}
"""What stands beside the scores of files that lack answers."""

OTHER_ANSWERS = {"." * 40: "every period is removed; the original stops after 32"}
OTHER_SCORES = ("8, 9\nx", "8  9", "8 9 \n", " 8 9", "(8, 9)")
"""Two numbers set apart by blanks and commas, in brackets or not, are a pair; the original reads none."""


def run_case(case: dict, tmp_path: Path, *, as_module: bool = False) -> subprocess.CompletedProcess:
    """Run a program as recorded, in the folder that its arguments are relative to."""
    program = case["program"].split()[0]
    if "cwd gpt_review" in case["program"]:
        folder = METRICS / "gpt_review"
    else:
        folder = METRICS if any("/" in text for text in case["args"]) else METRICS / case["name"]
    arguments = [place(text, tmp_path) for text in case["args"] or POPE_FLAGS]
    if program.endswith(".py") and not as_module:
        command = [sys.executable, str(ROOT / program)]
    else:
        command = [sys.executable, "-m", program.removesuffix(".py").replace("/", ".")]
    return run([*command, *arguments], folder)


def run(command: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess:
    """Run a command with this repository's package."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def place(text: str, tmp_path: Path) -> str:
    """A file or folder to write, below the test's own folder."""
    return str(tmp_path / text) if text.startswith(("OUT", "DIR")) else text


def lay_out_vqav2(tmp_path: Path) -> None:
    """The folders that the VQAv2 converter reads."""
    questions, answers = "llava_vqav2_mscoco_test2015.jsonl", tmp_path / "DIR/answers/sp/ck/merge.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_bytes((METRICS / "vqav2/merge.jsonl").read_bytes())
    (tmp_path / "DIR" / questions).write_bytes((METRICS / "vqav2" / questions).read_bytes())


def read_any(path: Path) -> object:
    """What a file says, whatever its format."""
    if path.suffix == ".xlsx":
        book = openpyxl.load_workbook(path)
        rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
        return {"sheets": book.sheetnames, "rows": rows}
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".jsonl" or text.count("\n{") else json.loads(text)


def blocks(text: str) -> list[str]:
    """POPE's blocks, sorted."""
    return sorted(block.strip() for block in before_evidence(text).split("=" * 36) if block.strip())


def before_evidence(text: str) -> str:
    """What is printed before the lines about the evidence, which the original does not have."""
    old, mark, lines = text.partition("Evidence: n=")
    assert all(line.startswith("Evidence: n=") for line in f"{mark}{lines}".splitlines())
    return old


def without_coverage(text: str) -> tuple[str, list[str]]:
    """What is printed without the lines about coverage, which the original does not have, and these."""
    lines = before_evidence(text).splitlines(keepends=True)
    coverage = [line.removeprefix("Coverage: ").strip() for line in lines if line.startswith("Coverage: ")]
    return "".join(line for line in lines if not line.startswith("Coverage: ")), coverage


def count_of(block: str, name: str) -> int:
    """TP, FP, TN or FN of a block."""
    _, heading, numbers, *_ = block.split("\n")
    return int(numbers.split("\t")[heading.split("\t").index(name)])


def test_every_crash_is_a_departure() -> None:
    crashed = {name for name, case in CASES.items() if case["exit_code"] != 0}
    assert crashed
    assert crashed <= set(DEPARTURES) <= set(CASES)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(DEPARTURES)))
def test_text_and_files_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if name == "vqav2":
        lay_out_vqav2(tmp_path)
    result = run_case(case, tmp_path)
    assert result.returncode == 0, result.stderr
    if "stdout_blocks" in case:
        assert blocks(result.stdout) == sorted(case["stdout_blocks"])
    else:
        told, coverage = without_coverage(result.stdout)
        assert told == case["stdout"]
        assert coverage == COVERAGE.get(name, [])
    for written, wanted in case["expected_files"].items():
        assert read_any(tmp_path / written) == read_any(METRICS / wanted.split()[0]), written


@pytest.mark.parametrize("name", DEPARTURES)
def test_departures_give_a_number_or_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    reason, code, stdout = DEPARTURES[name]
    result = run_case(CASES[name], tmp_path)
    told, coverage = without_coverage(result.stdout)
    assert (result.returncode, told, coverage) == (code, stdout, COVERAGE.get(name, [])), reason
    assert "Traceback" not in result.stderr
    if code:
        assert "1 question has no answer, first v11" in result.stderr
        assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("name", ["pope", "textvqa", "scienceqa_minitest", "gpt_review_dir"])
def test_programs_start_as_modules_too(name: str, tmp_path: Path) -> None:
    result = run_case(CASES[name], tmp_path, as_module=True)
    assert result.returncode == 0, result.stderr
    assert blocks(result.stdout) == blocks(run_case(CASES[name], tmp_path).stdout) != []


def test_what_the_published_rule_takes_for_yes_is_told(tmp_path: Path) -> None:
    """The golden file has the answers NO and "No", and a label No, which the original counts as yes."""
    case = CASES["pope"]
    told = run_case(case, tmp_path).stderr
    assert "9 answers are no in another form" in told
    assert "1 label is no in another form" in told
    other = run_case(case | {"args": [*case["args"], "--no-in-any-form"]}, tmp_path)
    assert other.stderr == ""
    said_yes = [sum(count_of(text, name) for name in ("TP", "FP")) for text in case["stdout_blocks"]]
    says_yes = [sum(count_of(text, name) for name in ("TP", "FP")) for text in blocks(other.stdout)]
    assert sum(said_yes) - sum(says_yes) == 9
    labels = [sum(count_of(text, name) for name in ("TP", "FN")) for text in blocks(other.stdout)]
    assert labels == [12, 11, 17]


FLAGS = golden("cli/eval_flags.json")["programs"]
PROGRAMS = (
    *(
        f"llava.eval.{name}"
        for name in ("eval_pope", "eval_textvqa", "eval_science_qa", "summarize_gpt_review")
    ),
    *(name for name in FLAGS if name.startswith("scripts/convert_")),
)


def parser_of(program: str) -> argparse.ArgumentParser:
    """The command line of a module or script."""
    if program.endswith(".py"):
        return runpy.run_path(str(ROOT / program))["parser"]()
    return importlib.import_module(program).parser()


@pytest.mark.parametrize("program", PROGRAMS)
def test_flags_and_their_defaults_are_those_of_the_original(program: str) -> None:
    ours = {flag: action for action in parser_of(program)._actions for flag in action.option_strings}
    for wanted in FLAGS[program]:
        actions = {id(ours[flag]): ours[flag] for flag in wanted["flags"]}
        (action,) = actions.values()
        default = list(action.default) if isinstance(action.default, tuple) else action.default
        assert (action.dest, default, action.required, action.nargs) == (
            wanted["dest"],
            wanted["default"],
            wanted["required"],
            wanted["nargs"],
        )


def test_scoring_needs_no_torch() -> None:
    modules = [program for program in PROGRAMS if not program.endswith(".py")] + ["llava.eval.m4c_evaluator"]
    scripts = [str(ROOT / program) for program in PROGRAMS if program.endswith(".py")]
    code = (
        f"import importlib, runpy, sys; [importlib.import_module(name) for name in {modules}]; "
        f"[runpy.run_path(name) for name in {[*scripts, str(ROOT / 'scripts/convert_sqa_to_llava.py')]}]; "
        "print([name for name in ('torch', 'transformers', 'openpyxl') if name in sys.modules])"
    )
    result = run([sys.executable, "-c", code])
    assert result.stdout == "[]\n", result.stderr


def test_answers_are_normalised_as_on_the_server() -> None:
    cases = golden("metrics/evalai_processor.json")
    pairs, process = dict(cases["pairs"]), EvalAIAnswerProcessor()
    assert set(OTHER_ANSWERS) <= set(pairs)
    for answer, wanted in pairs.items():
        assert (process(answer) == wanted) == (answer not in OTHER_ANSWERS), answer
    assert process("." * 40) == ""


def test_soft_scores() -> None:
    cases = golden("metrics/evalai_processor.json")
    evaluator, exact = TextVQAAccuracyEvaluator(), STVQAAccuracyEvaluator()
    for case in cases["textvqa_scores"]:
        assert answer_scores(case["gt"]) == pytest.approx(case["scores"], abs=1e-12)  # worst seen: 0
        one = [{"pred_answer": case["pred"], "gt_answers": case["gt"]}]
        assert evaluator.eval_pred_list(one) == pytest.approx(case["accuracy"], abs=1e-12)
    for case in cases["stvqa"]:
        one = [{"pred_answer": case["pred"], "gt_answers": case["gt"]}]
        assert exact.eval_pred_list(one) == case["accuracy"]


def test_scores_are_read_from_reviews() -> None:
    cases = {case["review"]: case["scores"] for case in golden("metrics/parse_score.json")["cases"]}
    assert set(OTHER_SCORES) <= set(cases)
    for review, scores in cases.items():
        wanted = [8.0, 9.0] if review in OTHER_SCORES else scores
        assert list(parse_score(review)) == wanted, review


@pytest.mark.parametrize("name", golden("metrics/scienceqa/expected_convert.json")["formats"])
def test_science_problems_become_conversations(name: str, tmp_path: Path) -> None:
    expected = golden("metrics/scienceqa/expected_convert.json")["formats"][name]
    folder = METRICS / "scienceqa"
    problems = read_split(folder, "test", read_problems(folder))
    shape = parse_format(name)
    wanted = expected["llava_json"]
    assert [conversation(problem, shape) for problem in problems[: len(wanted)]] == wanted
    rows = expected.get("jsonl", [])
    assert [instruction(problem, shape) for problem in problems[: len(rows)]] == rows


def test_the_science_converter_writes_both_files(tmp_path: Path) -> None:
    for name in ("problems.json", "pid_splits.json"):
        (tmp_path / name).write_bytes((METRICS / "scienceqa" / name).read_bytes())
    formats = golden("metrics/scienceqa/expected_convert.json")["formats"]
    script = str(ROOT / "scripts" / "convert_sqa_to_llava.py")
    for task, spelling in (("convert_to_llava", "--base-dir"), ("convert_to_jsonl", "--base_dir")):
        command = [sys.executable, script, task, spelling, str(tmp_path), "--split", "test"]
        result = run(command)
        assert result.stdout == formats["QCM-LEA"]["stdout"], result.stderr
    samples = json.loads((tmp_path / "llava_test_QCM-LEA.json").read_text(encoding="utf-8"))
    assert samples[:9] == formats["QCM-LEA"]["llava_json"]
    assert len(samples) == 19
    lines = (tmp_path / "scienceqa_test_QCM-LEPA.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines[:6]] == formats["QCM-LEPA"]["jsonl"]
