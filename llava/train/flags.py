"""The training command line before anything heavy is imported: unknown flags, old names, --help.

A command line is seen as flags with their words; where a flag is given twice, the last one counts.
"""

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

from llava.errors import UsageError
from llava.terminal import say
from llava.train.own_arguments import GROUPS, own_flag_names
from llava.train.trainer_flags import TRAINER_FLAGS

REQUIRED = ("model_name_or_path", "data_path", "output_dir")

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "include_tokens_per_second": "include_num_input_tokens_seen",
    "torch_compile": "compile_layers",
    "torch_compile_backend": "compile_backend",
}
"""Old name -> name in transformers 5; transformers' own --torch_compile would compile the whole model."""

NEWEST_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Names that only the newer versions of transformers know; both spellings are accepted everywhere."""

TRUTH_VALUES = ("", "true", "false", "yes", "no", "t", "f", "y", "n", "1", "0")
"""What a switch may be followed by; nothing means True."""
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
"""The flag that takes `auto` beside True and False, in both spellings."""

WITHOUT_EFFECT = {
    "lazy_preprocess": "samples are always encoded when they are drawn",
    "is_multimodal": "the data says it",
    "mpt_attn_impl": "there is no MPT model here",
    "double_quant": "it belongs to --bits 4",
    "quant_type": "it belongs to --bits 4",
    "save_safetensors": "weights are always saved as safetensors",
    "overwrite_output_dir": "a run is never overwritten, name another folder for another run",
    "logging_dir": "TensorBoard's folder is TENSORBOARD_LOGGING_DIR in the environment",
    "include_inputs_for_metrics": "there are no metrics during training",
    "half_precision_backend": "there is one backend",
    "fp16_backend": "there is one backend",
    "fp16_opt_level": "there is one backend",
    "torch_compile_mode": "the decoder layers are compiled in the default mode",
    "use_mps_device": "the device is found",
    "ray_scope": "there is no search for hyper-parameters",
}
"""Accepted for the sake of old scripts, with the reason why nothing happens."""

SOME_VALUES: dict[str, tuple[tuple[str, ...], str]] = {
    "bits": (
        ("16",),
        "training in 4 or 8 bits is not there yet; drop the flag, or use --lora_enable in bf16",
    ),
    "lora_weight_path": (
        ("",),
        "it never had an effect in the original; name a checkpoint with --model_name_or_path",
    ),
    "mm_patch_merge_type": (("flat",), "pictures are not cut into tiles here; set it to flat"),
    "train_sampling_strategy": (
        ("random", "group_by_length"),
        "the order is random by picture, or by length; use random or group_by_length",
    ),
    "resume_from_checkpoint": (
        ("True", ""),
        "a run goes on by itself, from the newest checkpoint of its own --output_dir and from no other",
    ),
}
"""Flags of which these values work, the first as the default, and what to do instead of another."""


@dataclass(frozen=True)
class Flag:
    """One flag of a command line, its name with underscores, and the words after it."""

    name: str
    words: tuple[str, ...]


def split_flags(argv: Sequence[str]) -> list[Flag]:
    """`--a b --c-d=e` to flags. `UsageError` for words before the first flag and for single dashes."""
    flags: list[Flag] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags.append(Flag(name.replace("-", "_"), (value,) if equals else ()))
        elif not flags:
            raise UsageError(
                f"found {word!r} where a flag was wanted; flags look like --data_path train.json."
            )
        else:
            flags[-1] = Flag(flags[-1].name, (*flags[-1].words, word))
    return flags


def join_flags(flags: Sequence[Flag]) -> list[str]:
    """The command line of these flags."""
    return [word for flag in flags for word in (f"--{flag.name}", *flag.words)]


def known_flags() -> set[str]:
    """Every name that is accepted, old ones included."""
    names = {*own_flag_names(), *TRAINER_FLAGS, *RENAMED, *WITHOUT_EFFECT, *SOME_VALUES, *NEWEST_NAMES}
    return names | set(NEWEST_NAMES.values())


def unknown_flag_message(name: str, known: Collection[str]) -> str:
    """`unknown flag --x, did you mean --y?`"""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"unknown flag --{name}" + (f", did you mean --{near[0]}?" if near else "")


def check_flags(argv: Sequence[str]) -> None:
    """All that can be said about a training command line without importing torch.

    Prints the help and exits for --help. `UsageError` lists every problem: unknown and missing flags,
    values that do not work here, a tracker or DeepSpeed that is not installed.
    """
    if any(word in ("-h", "--help") for word in argv):
        say(help_text())
        raise SystemExit(0)
    flags = split_flags(argv)
    known = known_flags()
    problems = [
        unknown_flag_message(flag.name, known)
        for flag in flags
        if flag.name not in known and flag.name.removeprefix("no_") not in known
    ]
    values = {RENAMED.get(flag.name, flag.name): " ".join(flag.words) for flag in flags}
    missing = [f"--{name}" for name in REQUIRED if not values.get(name)]
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    problems += some_value_problems(values)
    problems += evaluation_problems(values)
    problems += installation_problems(values)
    if problems:
        raise UsageError("; ".join(problems) + " (--help lists the flags).")


def some_value_problems(values: dict[str, str]) -> list[str]:
    """Flags whose value does not work here; a switch without a word means True."""
    problems = []
    for name, (allowed, remedy) in SOME_VALUES.items():
        found = values.get(name, allowed[0])
        if found.lower() not in [value.lower() for value in allowed]:
            problems.append(f"--{name} is {found or 'True'}: {remedy}")
    return problems


def evaluation_problems(values: dict[str, str]) -> list[str]:
    """Evaluation needs samples that are held out, and early stopping needs evaluation."""
    share, patience = values.get("eval_split", "0"), values.get("early_stopping_patience", "0")
    problems = []
    if not is_number(share) or not 0 <= float(share) < 1:
        problems.append(f"--eval_split is {share}; a share from 0 up to, but below 1 was wanted (0.05 = 5 %)")
    elif float(share) == 0:
        wanted = "set --eval_split 0.05 to keep out some pictures"
        if values.get("eval_strategy", "no") != "no":
            problems.append(
                f"--eval_strategy is {values['eval_strategy']}, but nothing is there to evaluate on; {wanted}"
            )
        if patience != "0":
            problems.append(
                f"--early_stopping_patience is {patience}, but nothing is there to evaluate on; {wanted}"
            )
    if patience != "0" and values.get("save_strategy", "steps") == "no":
        problems.append(
            f"--early_stopping_patience {patience} keeps the best checkpoint, and --save_strategy is no; "
            "set it to steps or epoch"
        )
    if values.get("on_nonfinite") == "skip" and values.get("deepspeed"):
        problems.append(
            "--on_nonfinite skip: DeepSpeed takes its steps within the backward pass, so none can be left "
            "out; set it to stop, or drop --deepspeed"
        )
    return problems


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def add_evaluation_flags(argv: Sequence[str]) -> list[str]:
    """The command line with what --eval_split and --early_stopping_patience imply, where it says nothing.

    The best checkpoint can be kept only if there is an evaluation at each checkpoint, so the one follows the
    other. Early stopping goes on counting after an interruption.
    """
    flags = split_flags(argv)
    values = {flag.name: " ".join(flag.words) for flag in flags}
    if not float(values.get("eval_split", "0")):
        return list(argv)
    implied = {"eval_strategy": "epoch"}
    if values.get("early_stopping_patience", "0") != "0":
        implied = {
            "eval_strategy": values.get("save_strategy", "steps"),
            "eval_steps": values.get("save_steps", "500"),
            "load_best_model_at_end": "True",
            "metric_for_best_model": "eval_loss",
            "greater_is_better": "False",
            "restore_callback_states_from_checkpoint": "True",
        }
    more = [Flag(name, (word,)) for name, word in implied.items() if name not in values]
    return join_flags([*flags, *more])


def installation_problems(values: dict[str, str]) -> list[str]:
    """What the command line asks for and this machine does not have."""
    problems = []
    trackers = {"wandb": ("wandb",), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",)}
    for tracker in values.get("report_to", "").split():
        packages = trackers.get(tracker, ())
        if packages and not any(find_spec(package) for package in packages):
            problems.append(
                f"--report_to {tracker}: it is not installed; pip install {tracker}, or --report_to none"
            )
    settings = values.get("deepspeed", "")
    if settings:
        if find_spec("deepspeed") is None:
            problems.append("--deepspeed: it is not installed; pip install deepspeed, or drop the flag")
        problems += settings_problems(settings)
    return problems


def settings_problems(settings: str) -> list[str]:
    """What is wrong with the DeepSpeed settings, a file or JSON."""
    is_text = settings.lstrip().startswith("{")
    if not is_text and not Path(settings).is_file():
        return [f"--deepspeed {settings}: no such file; try scripts/zero2.json or scripts/zero3.json"]
    try:
        json.loads(settings if is_text else Path(settings).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        return [f"--deepspeed {settings}: not JSON ({error})"]
    return []


def translate_flags(argv: Sequence[str], trainer_fields: Collection[str]) -> tuple[list[str], list[str]]:
    """Old names to those of the installed transformers: the new command line, and notices for the user.

    `trainer_fields`: those of the installed TrainingArguments. `UsageError`: a warm-up ratio out of range.
    """
    flags, notices = [], []
    for flag in split_flags(argv):
        if flag.name in WITHOUT_EFFECT:
            notices.append(f"--{flag.name} has no effect: {WITHOUT_EFFECT[flag.name]}.")
            continue
        if flag.name == "train_sampling_strategy":  # which of our samplers; transformers' own are not used
            by_length = str(flag.words == ("group_by_length",))
            flags.append(Flag("group_by_length", (by_length,)))
            continue
        if flag.name in SOME_VALUES and flag.name not in trainer_fields:
            continue
        if flag.name in CHECKPOINTING:
            is_auto = is_auto_checkpointing(flag)
            flags.append(Flag("auto_checkpointing", (str(is_auto),)))
            if is_auto:
                continue
        if flag.name == "warmup_ratio":
            check_ratio(flag)
        name = RENAMED.get(flag.name, flag.name)
        for old, new in NEWEST_NAMES.items():
            if name in (old, new):
                name = new if new in trainer_fields else old
        flags.append(Flag(name, flag.words))
    return join_flags(flags), list(dict.fromkeys(notices))


def is_auto_checkpointing(flag: Flag) -> bool:
    """Whether the flag says `auto`; `UsageError` for a word that is neither that nor a truth value."""
    word = " ".join(flag.words).lower()
    if word not in ("auto", *TRUTH_VALUES):
        raise UsageError(f"--{flag.name} is {' '.join(flag.words)}; use auto, True or False.")
    return word == "auto"


def check_ratio(flag: Flag) -> None:
    """A warm-up ratio becomes --warmup_steps, which reads numbers below 1 as a ratio, so it must be one."""
    try:
        is_ratio = 0 <= float(" ".join(flag.words)) < 1
    except ValueError:
        is_ratio = False
    if not is_ratio:
        raise UsageError(
            f"--warmup_ratio is {' '.join(flag.words) or 'empty'}; it must be at least 0 and below 1 "
            "(0.03 = 3 % of the steps). For a number of steps use --warmup_steps."
        )


def help_text() -> str:
    """Our flags with their defaults, and where the others are."""
    lines = ["Train a LLaVA on a conversation JSON and a folder of pictures.", ""]
    lines.append("  python -m llava.train.train --model_name_or_path CHECKPOINT --data_path train.json \\")
    lines.append("      --image_folder images --lora_enable True --output_dir checkpoints/mine")
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [help_line(entry) for entry in fields(group)]
    lines += [
        "",
        "All flags of transformers' TrainingArguments work too: --output_dir (required), --num_train_epochs,",
        "--per_device_train_batch_size, --gradient_accumulation_steps, --learning_rate, --weight_decay,",
        "--warmup_steps (or --warmup_ratio), --lr_scheduler_type, --logging_steps, --save_steps,",
        "--save_total_limit, --bf16, --deepspeed, --seed, ... --gradient_checkpointing takes auto (the",
        "default), True or False; --torch_compile compiles the decoder layers.",
        f"Accepted without effect: {', '.join(f'--{name}' for name in WITHOUT_EFFECT)}.",
    ]
    return "\n".join(lines) + "\n"


def help_line(entry: Field) -> str:
    """A flag, what it does, and its default or choices."""
    choices = getattr(entry.type, "__args__", ())
    words = [str(choice) for choice in choices if isinstance(choice, str)]
    notes = ["one of " + ", ".join(words)] if words else []
    notes.append("required" if entry.default is MISSING else f"default {entry.default}")
    return f"  --{entry.name:<27} {entry.metadata['help']} ({'; '.join(notes)})"
