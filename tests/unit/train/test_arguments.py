"""Flags: the original's scripts parse, unknown ones are told at once, machines without a GPU are served."""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import transformers

from llava.conversation import TEMPLATES, training_template
from llava.errors import UsageError
from llava.train import arguments, flags
from llava.train.arguments import (
    Machine,
    add_loader_flags,
    cores_of_this_rank,
    fit_to_machine,
    parse_arguments,
)
from llava.train.flags import (
    SOME_VALUES,
    check_flags,
    help_text,
    installation_problems,
    known_flags,
    split_flags,
    translate_flags,
)
from llava.train.own_arguments import own_flag_names
from llava.train.starting_model import parts_of
from llava.train.trainer_flags import TRAINER_FLAGS

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "data" / "parity" / "cli"
BASE = ["--model_name_or_path", "base", "--data_path", "train.json", "--output_dir", "out"]
GPU = Machine(has_accelerator=True, has_tf32=True)
CPU = Machine(has_accelerator=False, has_tf32=False)


def original_commands() -> list[tuple[str, dict[str, object]]]:
    """(script, flags) of every training command of the original."""
    scripts = json.loads((GOLDEN / "script_flags.json").read_text(encoding="utf-8"))["scripts"]
    return [
        (script["script"], dict(command["flags"]))
        for script in scripts
        for command in script["commands"]
        if (command["program"] or "").startswith("llava/train/")
    ]


COMMANDS = original_commands()


@pytest.fixture(autouse=True)
def _everything_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Old scripts name wandb and DeepSpeed settings; neither is what these tests are about."""
    monkeypatch.setattr("llava.train.flags.installation_problems", lambda values: [])
    monkeypatch.setattr(arguments, "this_machine", lambda: CPU)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize(("script", "given"), COMMANDS, ids=[script for script, _ in COMMANDS])
def test_the_originals_scripts_parse(script: str, given: dict[str, object]) -> None:
    version = "plain" if "pretrain" in script else "v1"
    replaced = {"--version": version, "--report_to": "none"}
    argv = []
    for name, value in given.items():
        if name == "--deepspeed":
            continue
        argv += [name] if value is True else [name, str(replaced.get(name, value))]
    if "--bits" in argv:
        with pytest.raises(UsageError, match=r"--bits is 4: .* not there yet"):
            parse_arguments(argv)
        return
    model_args, data_args, training_args = parse_arguments(argv)
    assert model_args.version == version
    assert model_args.mm_vision_select_layer == int(given["--mm_vision_select_layer"])
    assert data_args.data_path == given["--data_path"]
    assert training_args.warmup_steps == 0.03
    assert training_args.get_warmup_steps(1000) == 30
    assert training_args.lora_enable == ("lora" in script)
    assert training_args.gradient_checkpointing is True
    assert training_args.use_cpu
    assert not training_args.tf32


def test_every_flag_of_the_original_is_known() -> None:
    golden = json.loads((GOLDEN / "train_args.json").read_text(encoding="utf-8"))
    names = {entry["name"] for key, entries in golden.items() if key != "note" for entry in entries}
    assert len(names) > 30
    assert names <= known_flags()


def test_the_list_of_trainer_flags_is_not_stale() -> None:
    installed = {entry.name for entry in fields(transformers.TrainingArguments) if entry.init}
    assert installed <= set(TRAINER_FLAGS), "add the missing names to llava/train/trainer_flags.py"
    assert len(set(TRAINER_FLAGS) - installed) <= 10, "names that no supported version has"


def test_defaults() -> None:
    model_args, data_args, training_args = parse_arguments(BASE)
    assert (model_args.version, model_args.freeze_vision_tower, model_args.vision_tower) == ("v1", True, None)
    assert (data_args.image_aspect_ratio, data_args.check_pictures) == (None, "auto")
    assert (training_args.packing, training_args.max_branches) == ("shared", 8)
    assert (training_args.lora_r, training_args.lora_alpha, training_args.lora_dropout) == (64, 16, 0.05)
    assert training_args.remove_unused_columns is False
    assert training_args.logging_nan_inf_filter is False
    assert training_args.average_tokens_across_devices is True
    assert training_args.report_to == []
    assert training_args.optim == "adamw_torch"


@pytest.mark.parametrize(
    ("version", "template"), [("v0", "v1"), ("v0.5", "v1"), ("vicuna_v1", "v1"), ("llava_v0", "llava_v0")]
)
def test_the_checkpoint_names_the_template_that_was_trained(version: str, template: str) -> None:
    parts = parts_of(*parse_arguments([*BASE, "--version", version]))
    assert parts.conv_template == template
    assert training_template(version) is TEMPLATES[template]


def test_switches_take_words_and_stand_alone() -> None:
    _, _, training_args = parse_arguments(
        [*BASE, "--lora_enable", "--bf16=True", "--freeze-mm-mlp-adapter", "no"]
    )
    assert (training_args.lora_enable, training_args.bf16, training_args.freeze_mm_mlp_adapter) == (
        True,
        True,
        False,
    )


def test_the_last_of_two_flags_counts() -> None:
    _, _, training_args = parse_arguments(
        [*BASE, "--warmup_ratio", "0.03", "--warmup_steps", "7", "--lora_r", "8", "--lora_r", "4"]
    )
    assert (training_args.warmup_steps, training_args.lora_r) == (7, 4)


def test_notices_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llava.train.arguments"):
        parse_arguments([*BASE, "--lazy_preprocess", "True", "--lazy_preprocess", "True", "--tf32", "True"])
    text = "\n".join(
        record.getMessage() for record in caplog.records if record.name == "llava.train.arguments"
    )
    assert text.count("--lazy_preprocess has no effect") == 1
    assert "--tf32 is off" in text
    assert "training on the CPU" in text


@pytest.mark.parametrize(
    ("added", "by_modality", "by_length"),
    [
        (["--group_by_modality_length", "True"], True, False),
        (["--group_by_length"], False, True),
        (["--train_sampling_strategy", "group_by_length"], False, True),
        (["--train_sampling_strategy=random"], False, False),
    ],
)
def test_grouping_by_length_says_where_it_has_no_effect(
    added: list[str], by_modality: bool, by_length: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, training_args = parse_arguments([*BASE, *added, "--packing", "none"])
    assert (training_args.group_by_modality_length, training_args.group_by_length) == (by_modality, by_length)
    assert "no effect" not in caplog.text
    parse_arguments([*BASE, *added])
    told = f"--group_by_{'modality_' * by_modality}length has no effect with --packing shared"
    assert (told in caplog.text) == (by_modality or by_length)


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(arguments, "build_groups", lambda argv: (_ for _ in ()).throw(KeyError("reached")))
    with pytest.raises(KeyError, match="reached"):
        parse_arguments([*BASE, "--lazy_preprocess", "True"])
    assert not caplog.records


@pytest.mark.parametrize(
    ("added", "parts"),
    [
        (["--learning_rte", "1"], ["unknown flag --learning_rte", "did you mean --learning_rate?"]),
        (["--lora_rank", "1", "--max_branch", "2"], ["--lora_rank", "did you mean --max_branches?"]),
        (["--logging_ste", "1"], ["unknown flag --logging_ste"]),
        (["--xyzzy"], ["unknown flag --xyzzy"]),
        (["--bits", "8"], ["--bits is 8", "not there yet"]),
        (["--lora_weight_path", "x"], ["--lora_weight_path is x"]),
        (["--train_sampling_strategy", "sequential"], ["is sequential", "group_by_length"]),
        (["--mm_patch_merge_type", "spatial"], ["--mm_patch_merge_type is spatial"]),
        (["--evaluation_strategy", "steps"], ["--eval_strategy is steps", "--eval_split 0.05"]),
        (["--eval_split", "5"], ["--eval_split is 5", "below 1"]),
        (["--early_stopping_patience", "3"], ["--early_stopping_patience is 3", "--eval_split 0.05"]),
        (
            ["--early_stopping_patience", "3", "--eval_split", "0.1", "--save_strategy", "no"],
            ["keeps the best checkpoint"],
        ),
        (["--on_nonfinite", "skip", "--deepspeed", "{}"], ["--on_nonfinite skip", "drop --deepspeed"]),
        (["--warmup_ratio", "3"], ["--warmup_ratio is 3", "--warmup_steps"]),
        (["--warmup_ratio", "much"], ["--warmup_ratio is much"]),
        (["--lora_r", "many"], ["lora_r", "'many'"]),
        (["--lora_r", "0"], ["--lora_r is 0", "at least 1"]),
        (["--lora_dropout", "1"], ["--lora_dropout is 1.0", "below 1"]),
        (["--lora_bias", "some"], ["lora_bias", "'some'", "lora_only"]),
        (["--packing", "share"], ["packing", "'share'", "shared"]),
        (["--image_aspect_ratio", "anyres"], ["image_aspect_ratio", "'anyres'", "pad"]),
        (["--version", "v2"], ["--version is 'v2'", "known templates", "v1"]),
        (["--bf16", "maybe"], ["bf16", "maybe"]),
        (["--fp16", "True"], ["--fp16 needs a GPU"]),
        (["--remove_unused_columns", "True"], ["--remove_unused_columns is True"]),
        (["--lora_enable", "True", "--tune_mm_mlp_adapter", "True"], ["exclude each other"]),
        (["--freeze_mm_mlp_adapter", "True", "--tune_mm_mlp_adapter", "True"], ["nothing to train"]),
        (["--mm_projector_lr", "-1"], ["--mm_projector_lr is -1.0"]),
        (["--image_folder", "my", "pictures"], ["'pictures' is one word too many"]),
        (["--logging_steps", "1.5"], ["--logging_steps must be an integer"]),
    ],
)
def test_bad_flags_are_told(added: list[str], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments([*BASE, *added])
    for part in parts:
        assert part in str(caught.value)


def test_missing_flags_and_stray_words_are_told() -> None:
    with pytest.raises(UsageError, match="missing: --data_path, --output_dir"):
        check_flags(["--model_name_or_path", "base"])
    with pytest.raises(UsageError, match=r"found 'train\.json' where a flag was wanted"):
        check_flags(["train.json", *BASE])


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flags, "find_spec", lambda name: None)
    found = installation_problems({"report_to": "wandb", "deepspeed": "{}"})
    assert [text.split(":")[0] for text in found] == ["--report_to wandb", "--deepspeed"]
    monkeypatch.setattr(flags, "find_spec", lambda name: object())
    assert installation_problems({"report_to": "wandb", "deepspeed": '{"fp16": {}}'}) == []
    (tmp_path / "zero2.json").write_text("{broken}", encoding="utf-8")
    assert "not JSON" in installation_problems({"deepspeed": str(tmp_path / "zero2.json")})[0]
    assert "no such file" in installation_problems({"deepspeed": str(tmp_path / "zero9.json")})[0]


def test_old_names_are_translated() -> None:
    argv = ["--no_cuda", "--gradient-checkpointing", "True", "--evaluation_strategy", "no", "--bits", "16"]
    new, notices = translate_flags(argv, {"activation_checkpointing", "eval_strategy"})
    not_auto = ["--auto_checkpointing", "False"]
    assert new == ["--use_cpu", *not_auto, "--activation_checkpointing", "True", "--eval_strategy", "no"]
    older, _ = translate_flags(["--activation_checkpointing", "True"], {"gradient_checkpointing"})
    assert older == [*not_auto, "--gradient_checkpointing", "True"]
    assert notices == []


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_is_auto_or_a_truth_value(name: str) -> None:
    for word in ("auto", "Auto"):
        assert translate_flags([f"--{name}", word], {name})[0] == ["--auto_checkpointing", "True"]
    for words in ((), ("yes",), ("False",)):
        new, _ = translate_flags([f"--{name}", *words], {name})
        assert new == ["--auto_checkpointing", "False", f"--{name}", *words]
    with pytest.raises(UsageError, match=f"--{name} is maybe; use auto, True or False"):
        translate_flags([f"--{name}", "maybe"], {name})


def test_machines() -> None:
    assert fit_to_machine(["--tf32", "True", "--fp16", "True"], GPU) == (
        ["--tf32", "True", "--fp16", "True"],
        [],
    )
    argv, notices = fit_to_machine(["--tf32", "True", "--bf16", "True"], CPU)
    assert argv == ["--tf32", "True", "--bf16", "True", "--use_cpu", "True", "--tf32", "False"]
    assert len(notices) == 2
    older_gpu = Machine(has_accelerator=True, has_tf32=False)
    assert fit_to_machine(["--tf32", "True"], older_gpu)[0][-2:] == ["--tf32", "False"]
    assert fit_to_machine(["--use_cpu", "True"], CPU) == (["--use_cpu", "True"], [])


LOADERS = {
    "GPU": (16, True, [], "8"),
    "GPU, few cores": (4, True, [], "3"),
    "GPU, one core": (1, True, [], "1"),
    "CPU": (8, False, [], "1"),
    "CPU, one core": (1, False, [], "0"),
    "told": (8, False, ["--dataloader_num_workers", "4"], "4"),
    "told in one word": (8, True, ["--dataloader_num_workers=4"], "4"),
    "told with dashes": (8, True, ["--dataloader-num-workers", "0"], "0"),
}


@pytest.mark.parametrize(("cores", "accelerator", "argv", "wanted"), LOADERS.values(), ids=LOADERS)
def test_pictures_are_opened_ahead_by_default(
    cores: int, accelerator: bool, argv: list[str], wanted: str
) -> None:
    flags = split_flags(add_loader_flags(argv, num_cores=cores, has_accelerator=accelerator))
    assert [(flag.name, flag.words) for flag in flags] == [("dataloader_num_workers", (wanted,))]


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    for ranks, cores in (("1", 12), ("4", 3), ("40", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert cores_of_this_rank() == cores


def test_the_length_of_rows_is_checked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert parse_arguments(BASE)[2].pack_tokens is None
    assert parse_arguments([*BASE, "--pack_tokens", "4096"])[2].pack_tokens == 4096
    assert "--pack_tokens" not in caplog.text
    with pytest.raises(UsageError, match=r"--pack_tokens is 0; it must be at least 1"):
        parse_arguments([*BASE, "--pack_tokens", "0"])
    parse_arguments([*BASE, "--pack_tokens", "4096", "--packing", "none"])
    assert "--pack_tokens has no effect with --packing none" in caplog.text


def test_flags_are_split() -> None:
    found = split_flags(["--a-b", "-2", "--c=x=y", "--d"])
    assert [(flag.name, flag.words) for flag in found] == [("a_b", ("-2",)), ("c", ("x=y",)), ("d", ())]


def test_help_names_every_own_flag() -> None:
    text = help_text()
    for name in own_flag_names():
        assert f"--{name} " in text
    assert "TrainingArguments" in text


def test_no_flag_has_two_meanings() -> None:
    assert not set(own_flag_names()) & set(SOME_VALUES)


def run(*argv: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """The training command in a process of its own, and its seconds."""
    code = (
        "import sys, llava.train.train as t\ntry:\n t.train()\nfinally:\n assert 'torch' not in sys.modules"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    return done, time.perf_counter() - start


def test_unknown_flags_are_told_before_torch_is_imported() -> None:
    done, seconds = run(*BASE, "--lerning_rate", "1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "did you mean --learning_rate?" in done.stderr
    assert seconds < 5  # about 0.1 s alone; other tests may hold the cores


def test_help_is_quick() -> None:
    done, seconds = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--max_branches" in done.stdout
    assert seconds < 5


def test_compiling_means_the_decoder_layers() -> None:
    """transformers' own flag would compile the whole model, for every batch anew."""
    *_, plain = parse_arguments(BASE)
    *_, chosen = parse_arguments([*BASE, "--torch_compile", "True"])
    *_, backend = parse_arguments([*BASE, "--torch_compile", "--torch_compile_backend", "aot_eager"])
    assert [one.compile_layers for one in (plain, chosen, backend)] == [False, True, True]
    assert [one.compile_backend for one in (plain, backend)] == ["inductor", "aot_eager"]
    assert not any(one.torch_compile for one in (plain, chosen, backend))
