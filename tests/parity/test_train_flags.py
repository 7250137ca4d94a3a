"""The original's training flags: every command of its scripts, every field of its argument classes, its
DeepSpeed settings. What differs stands in a table, with the reason.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
import transformers

from llava.errors import UsageError
from llava.train import arguments
from llava.train.arguments import Machine, parse_arguments
from llava.train.flags import SOME_VALUES, WITHOUT_EFFECT
from tests.parity.golden import golden

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = golden("cli/script_flags.json")
COMMANDS = [
    pytest.param(dict(command["flags"]), id=script["script"])
    for script in SCRIPTS["scripts"]
    for command in script["commands"]
    if (command["program"] or "").startswith("llava/train/")
]
FIELDS = {
    entry["name"]: entry
    for group, entries in golden("cli/train_args.json").items()
    if group != "note"
    for entry in entries
}
SETTINGS = golden("cli/deepspeed_config_facts.json")

VARIABLES = {"MODEL_VERSION": "vicuna-v1-3-7b", "PROMPT_VERSION": "v1"}
"""What the scripts ask their users to set."""
READ_AS = {
    "evaluation_strategy": ("eval_strategy", transformers.trainer_utils.IntervalStrategy.NO),
    "warmup_ratio": ("warmup_steps", 0.03),
    "report_to": ("report_to", []),
}
"""Flags under their name in transformers 5, and what they become."""
REPLACED = {"--report_to": "none"}
"""wandb is not installed everywhere; that is told in test_arguments.py."""
DEPARTURES = {
    "model_name_or_path": (None, "required: nobody means facebook/opt-125m"),
    "data_path": (None, "required"),
    "version": ("v1", "v0 trains the layout of v1 and keeps it from the checkpoint"),
    "mm_use_im_start_end": (None, "as the checkpoint does; False for a new model"),
    "mm_use_im_patch_token": (None, "as the checkpoint does; False for a new model, no text uses the token"),
    "image_aspect_ratio": (None, "as the checkpoint does; square for a new model"),
    "model_max_length": (2048, "512 cuts the 576 patches of a picture"),
}
"""Fields whose default differs: ours and the reason."""


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "this_machine", lambda: Machine(has_accelerator=False, has_tf32=False))
    monkeypatch.delenv("RANK", raising=False)


def typed(text: str) -> object:
    """A flag's word as Python value."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parsed(argv: list[str]) -> dict[str, object]:
    """All arguments by name."""
    return {key: value for group in parse_arguments(argv) for key, value in vars(group).items()}


def words_of(given: dict[str, str]) -> Iterator[str]:
    """The command line with its shell variables set, without --deepspeed (it would change this process)."""
    for flag, value in given.items():
        if flag != "--deepspeed":
            yield from (flag, REPLACED.get(flag, Template(value).substitute(VARIABLES)))


@pytest.mark.parametrize("given", COMMANDS)
def test_every_flag_of_a_script_does_what_it_says(given: dict[str, str]) -> None:
    if given.get("--bits", "16") != "16":
        with pytest.raises(UsageError, match=r"--bits is 4: .*--lora_enable in bf16"):
            parse_arguments(list(words_of(given)))
        return
    argv = list(words_of(given))
    found = parsed(argv)
    for flag, word in zip(argv[::2], argv[1::2], strict=True):
        name = flag.removeprefix("--")
        if name in WITHOUT_EFFECT or (name in SOME_VALUES and name not in READ_AS):
            continue
        name, wanted = READ_AS.get(name, (name, typed(word)))
        if name == "tf32":
            wanted = False  # there is no GPU
        assert found[name] == wanted, flag
    assert (ROOT / given["--deepspeed"]).is_file()


def test_every_flag_of_the_scripts_was_seen() -> None:
    seen = {flag for command in COMMANDS for flag in command.values[0]}  # type: ignore[union-attr]
    assert seen == set(SCRIPTS["all_training_flags_used"])


MINIMUM = {"model_name_or_path": "base", "data_path": "train.json", "output_dir": "out"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_the_originals_default(name: str) -> None:
    argv = [word for key, value in MINIMUM.items() for word in (f"--{key}", value)]
    default = FIELDS[name]["default"]
    found = parsed(argv)
    if name in found:
        ours = None if name in MINIMUM else found[name]
        assert ours == (DEPARTURES[name][0] if name in DEPARTURES else default)
        assert name not in DEPARTURES or name in MINIMUM or ours != default, "no departure"
    else:
        assert (name in WITHOUT_EFFECT) != (name in SOME_VALUES)
    if default is None or name == "model_name_or_path":
        return
    given = parsed([*argv, f"--{name}", str(default)])  # the default by its word: of the right type
    if name in found:
        assert given[name] == default
        assert isinstance(given[name], type(default))


@pytest.mark.parametrize("name", [name for name in SOME_VALUES if name in FIELDS])
def test_a_flag_that_cannot_be_had_names_what_to_do_instead(name: str) -> None:
    argv = [word for key, value in MINIMUM.items() for word in (f"--{key}", value)]
    with pytest.raises(UsageError, match=f"--{name} is 8: .*{SOME_VALUES[name][1][-12:]}"):
        parse_arguments([*argv, f"--{name}", "8"])


ADDED = {
    "gradient_clipping": "auto",  # --max_grad_norm counts with DeepSpeed too; two of the three name none
    "zero_allow_untested_optimizer": True,  # every --optim of transformers may be tried
}
LEFT_OUT = {
    "optimizer",  # with the scheduler of the offload file it overrides the command line's
    "scheduler",
    "steps_per_print",
    "wall_clock_breakdown",
}
RENAMED_KEYS = {"gather_16bit_weights_on_model_save": "stage3_gather_16bit_weights_on_model_save"}
"""Today's name; under the old one weights would not be gathered for saving."""


@pytest.mark.parametrize("name", SETTINGS)
def test_deepspeed_settings_hold_the_originals_facts(name: str) -> None:
    facts, ours = SETTINGS[name], json.loads((ROOT / "scripts" / name).read_text(encoding="utf-8"))
    assert set(ours) == set(facts["top_level_keys"]) - LEFT_OUT | set(ADDED)
    assert {key: ours[key] for key in ADDED} == ADDED
    zero = {RENAMED_KEYS.get(key, key): value for key, value in facts["zero_keys"].items()}
    assert ours["zero_optimization"] == zero
    assert ours["zero_optimization"]["stage"] == facts["zero_stage"]
    assert (ours["fp16"], ours["bf16"]) == (facts["fp16"], facts["bf16"])
