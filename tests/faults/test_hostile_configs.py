"""Hostile configurations: refused by name before memory is taken, and nothing in them runs."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from llava.errors import UsageError
from llava.images import load_image_processor
from llava.model.builder import load_pretrained_model
from llava.model.contents import read_config
from llava.tokenizer import load_tokenizer
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.hostile import counting_server
from tests.faults.hostile_models import (
    FULL,
    HUGE,
    LANGUAGE_MODEL,
    LORA,
    NAN,
    TOWER,
    Changed,
    mutated,
    refusal,
    refusal_of,
    values_of,
)
from tests.parity.golden import DATA

SIZES = (HUGE, 10**30, -1, 0, 1.5, "64", True, NAN, [], {}, [HUGE], {"a": HUGE})
TEXT_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size")
HEADS = [("num_attention_heads", 3), ("num_key_value_heads", 3), ("num_attention_heads", 10**4)]
CASES = [(name, value) for name in TEXT_SIZES for value in SIZES] + HEADS
CASES += [("rms_norm_eps", value) for value in (NAN, 0, -1e-6, "1e-6", 2, 1e400)]
CASES += [
    ("num_hidden_layers", 900),
    ("hidden_size", 1 << 20),
    ("vocab_size", 1 << 24),
    ("head_dim", 1 << 16),
]
VISION_CASES = [
    ("patch_size", 0), ("patch_size", -1), ("patch_size", HUGE), ("patch_size", 1.5), ("patch_size", "14"),
    ("image_size", 10**6), ("image_size", 0), ("image_size", 1), ("image_size", "336"), ("image_size", NAN),
    ("hidden_size", HUGE), ("num_hidden_layers", HUGE), ("num_attention_heads", 3), ("layer_norm_eps", NAN),
    ("num_channels", HUGE), ("projection_dim", -1), ("intermediate_size", 10**12), ("model_type", ["clip"]),
    ("num_hidden_layers", 1000), ("hidden_size", 1 << 20), ("model_type", "no such model"),
    ("model_type", None),
]  # fmt: skip


def test_sizes_that_cannot_be(originals: Path, ours: Path, little_memory: None, fault_log: FaultLog) -> None:
    """In the original's flat config.json, and in our nested one."""
    flat, nested = originals / FULL / "config.json", ours / "config.json"
    for name, value in CASES:
        with Changed(flat, values_of(flat) | {name: value}):
            told = refusal(originals / FULL)
            assert told is not None, (name, value)
            assert str(originals / FULL) in told, (name, value)
        values = values_of(nested)
        with Changed(nested, values | {"text_config": values["text_config"] | {name: value}}):
            told = refusal(ours)
            assert told is not None, (name, value)
            assert str(ours) in told, (name, value)
    assert refusal(originals / FULL) is None
    assert refusal(ours) is None
    fault_log(
        "config.json with a size or number that cannot be",
        "refused before allocation",
        REFUSED,
        2 * len(CASES),
    )


def test_a_tower_that_cannot_be(
    originals: Path, ours: Path, little_memory: None, fault_log: FaultLog
) -> None:
    file, nested = originals / TOWER / "config.json", ours / "config.json"
    for name, value in VISION_CASES:
        values = values_of(file)
        inner = (
            {"vision_config": values["vision_config"] | {name: value}} if "vision_config" in values else None
        )
        with Changed(file, values | (inner or {name: value})):
            assert refusal(originals / FULL) is not None, (name, value)
        values = values_of(nested)
        with Changed(nested, values | {"vision_config": values["vision_config"] | {name: value}}):
            told = refusal(ours)
            assert told is not None or value is None, (name, value)
    fault_log(
        "a vision tower's config.json that cannot be",
        "refused before allocation",
        REFUSED,
        2 * len(VISION_CASES),
    )


OWN_CASES = [
    ("mm_projector_type", "mlp1000000000x_gelu"), ("mm_projector_type", 3), ("mm_projector_type", None),
    ("mm_projector_type", "mlp64x_gelu"), ("mm_vision_select_layer", 99), ("mm_vision_select_layer", "-2"),
    ("mm_vision_select_layer", -99), ("mm_vision_select_layer", 1.5), ("mm_vision_select_layer", None),
    ("image_aspect_ratio", "evil"), ("image_aspect_ratio", ["pad"]), ("image_aspect_ratio", "anyres"),
    ("tokenizer_model_max_length", -1), ("tokenizer_model_max_length", "2048"),
    ("tokenizer_model_max_length", 10**30), ("conv_template", 3), ("conv_template", {"a": 1}),
    ("mm_use_im_start_end", "yes"), ("mm_use_im_patch_token", {}), ("s2", "yes"), ("text_config", "llama"),
    ("text_config", []), ("text_config", {"model_type": "no such model"}), ("vision_config", 3),
    ("vision_config", {"model_type": 3}), ("mm_patch_merge_type", "evil"), ("tokenizer_padding_side", 3),
    ("quantization_config", {"quant_method": "awq"}), ("dtype", "evil"), ("model_type", 3),
    ("model_type", ["llava_personal"]), ("mm_vision_select_feature", "evil"),
]  # fmt: skip
TOGETHER = [
    {"image_aspect_ratio": "anyres", "image_grid_pinpoints": pinpoints}
    for pinpoints in (
        [[10**6, 10**6]], [[0, 0]], [[-336, 336]], "(" * 3000, "[" * 100_000, [[336]], "[[336, 10**9]]",
        [[1, 1]],
        "__import__('os').system('true')", [["a", "b"]], {"a": 1}, 7, [[NAN, 336]], [[1e300, 336]],
        [[56, 56]] * 5000,
    )
]  # fmt: skip
TOGETHER += [
    {"s2": True, "s2_scales": scales} for scales in ("56,56000000", "", "0", [56, "x"], 7, {"a": 1}, "56,57")
]


def test_options_that_cannot_be(ours: Path, little_memory: None, fault_log: FaultLog) -> None:
    file = ours / "config.json"
    for changes in [{name: value} for name, value in OWN_CASES] + TOGETHER:
        with Changed(file, values_of(file) | changes):
            assert refusal(ours) is not None, changes
    fault_log("config.json with an option that cannot be", "refused", REFUSED, len(OWN_CASES) + len(TOGETHER))


IGNORED: dict[str, Any] = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModel": "evil.M"},
    "_attn_implementation_internal": "somebody/evil-kernel", "_attn_implementation": "somebody/evil-kernel",
    "attn_implementation": "somebody/evil-kernel", "trust_remote_code": True, "custom_pipelines": {"a": "b"},
    "_experts_implementation_internal": "somebody/evil", "experts_implementation": "somebody/evil",
    "num_labels": HUGE, "id2label": {"0": "a"}, "_name_or_path": "somebody/evil", "_commit_hash": "main",
    "to_dict": "evil", "check_options": 1, "num_patches": HUGE, "scales": [HUGE], "tiling": "evil",
    "attribute_map": {"hidden_size": "hidden_size"}, "sub_configs": {"a": "b"},
    "base_model_tp_plan": {"a": "b"},
    "_auto_class": "evil", "__class__": "evil", "from_dict": None, "vision_width": 1, "parts_of": "evil",
}  # fmt: skip


def with_everywhere(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes at the top and within every object of a config.json."""
    below = {key: with_everywhere(value, changes) for key, value in values.items() if isinstance(value, dict)}
    return values | below | changes


def test_what_could_run_code_has_no_effect(originals: Path, ours: Path, fault_log: FaultLog) -> None:
    """Remote code lies beside the configuration too: were it run, it would leave a mark."""
    marker = originals / "remote code ran"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Config: pass\nclass Model: pass\n"
    folders = [originals / FULL, originals / TOWER, originals / LANGUAGE_MODEL, ours]
    plain = load_file(ours / "model.safetensors")
    with counting_server() as server:
        for folder in folders:
            (folder / "evil.py").write_text(code, encoding="utf-8")
        changed = [
            Changed(folder / "config.json", with_everywhere(values_of(folder / "config.json"), IGNORED))
            for folder in folders
        ]
        try:
            _, model, _, _ = load_pretrained_model(str(originals / FULL))
            _, own, _, _ = load_pretrained_model(str(ours))
            load_pretrained_model(str(originals / LORA), str(originals / LANGUAGE_MODEL))
        finally:
            for one in changed:
                one.__exit__()
        assert server.paths == []
    assert not marker.exists()
    for opened in (model, own):
        assert opened.config.text_config._attn_implementation in (None, "sdpa", "eager")
        assert not hasattr(opened.config, "auto_map")
        assert opened.config.num_patches < 100
    assert torch.equal(own.lm_head.weight, plain["language_model.lm_head.weight"])
    for name in IGNORED:
        assert name not in read_config(ours)
    fault_log(
        "remote code, kernels, methods by a config.json, at every depth", "no effect", SURVIVED, len(IGNORED)
    )


def test_an_unknown_kind_with_remote_code_is_refused(originals: Path, fault_log: FaultLog) -> None:
    """transformers would ask on the terminal whether to run it."""
    marker = originals / "remote code ran"
    values = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    for name in (FULL, TOWER):
        (originals / name / "evil.py").write_text(
            f"open({str(marker)!r}, 'w')\nclass Config: pass\n", encoding="utf-8"
        )
        with Changed(originals / name / "config.json", values_of(originals / name / "config.json") | values):
            assert refusal(originals / FULL) is not None
    assert not marker.exists()
    fault_log("a model_type that only remote code knows", "refused without a question", REFUSED, 2)


BROKEN = [
    "", "{", "[]", "null", "3", '"text"', "{" * 5, "[" * 100_000, '{"a":' * 100_000, "\0", "not json",
    "{'a': 1}",
    '{"model_type": ' + "9" * 5000 + "}", '{"model_type": "\\ud800"}', "{}", '{"a": NaN}',
]  # fmt: skip
JSON_FILES = (
    "config.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json",
    "special_tokens_map.json", "added_tokens.json", "tokenizer.json", "model.safetensors.index.json",
)  # fmt: skip


@pytest.mark.parametrize("name", JSON_FILES)
def test_broken_json(
    name: str, ours: Path, originals: Path, little_memory: None, fault_log: FaultLog
) -> None:
    """Whether a file is needed or not, it never ends in a traceback; what is needed is refused."""
    places = [(ours, ours)]
    if name == "config.json":
        places += [(originals / FULL, originals / FULL), (originals / TOWER, originals / FULL)]
    for folder, opened in places:
        was_there = (folder / name).is_file()
        for content in [*BROKEN, b"\xff\xfe\xff"]:
            with Changed(folder / name, content):
                told = refusal(opened)
            assert told is None or str(folder) in told
            if name == "config.json" and was_there:
                assert told is not None, content[:20]
    count = len(places) * (len(BROKEN) + 1)
    fault_log("a JSON file of a model folder that is broken", "refused, or not needed", REFUSED, count)


WRONG_CROPS = (0, -1, 10**6, "336", NAN, [], {"height": 10**6, "width": 10**6}, None, 57)
WRONG_SIZES = (0, 10**9, "56", {"shortest_edge": -1}, {"longest_edge": 3}, {"height": 56}, [56])
PROCESSOR_CASES: list[tuple[str, Any]] = [
    *(("crop_size", value) for value in WRONG_CROPS), *(("size", value) for value in WRONG_SIZES),
    ("image_mean", [NAN, 0, 0]), ("image_mean", "red"), ("image_mean", [0.5]), ("image_std", [0, 0, 0]),
    ("image_std", [1e-400] * 3), ("image_std", [[1], 2, 3]), ("rescale_factor", NAN), ("rescale_factor", "x"),
    ("rescale_factor", 1e300), ("rescale_factor", 0), ("image_mean", [1e30] * 3),
]  # fmt: skip


def test_image_processors_that_cannot_be(ours: Path, little_memory: None, fault_log: FaultLog) -> None:
    file = ours / "preprocessor_config.json"
    for name, value in PROCESSOR_CASES:
        with Changed(file, values_of(file) | {name: value}):
            assert refusal(ours) is not None, (name, value)
    evil = {
        "image_processor_type": "Evil",
        "auto_map": {"AutoImageProcessor": "evil.Evil"},
        "processor_class": 3,
    }
    with Changed(file, values_of(file) | evil):
        load_image_processor(ours)
    fault_log("preprocessor_config.json that cannot be", "refused", REFUSED, len(PROCESSOR_CASES))


def test_tokenizers_that_cannot_be(ours: Path, little_memory: None, fault_log: FaultLog) -> None:
    """What still opens still works: it is used once."""
    rng = random.Random(0)
    count = 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        values = values_of(ours / name)
        if name == "tokenizer.json":  # its vocabulary is most of it, and would get nearly all changes
            values["model"]["vocab"] = dict(list(values["model"]["vocab"].items())[:300])
            values["model"]["merges"] = []
        for _ in range(150):
            count += 1
            with Changed(ours / name, json.dumps(mutated(values, rng))):
                told = refusal_of(lambda: load_tokenizer(ours)("USER: who?"))
            assert told is None or str(ours) in told
    with Changed(ours / "tokenizer.model", b"\x0a\xff" + rng.randbytes(3000)), pytest.raises(UsageError):
        load_tokenizer(ours)
    fault_log("a mutated tokenizer.json or tokenizer_config.json", "refused, or harmless", REFUSED, count + 1)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.sampled_from(["", "llama", "gelu", "sdpa", "evil/repo", "\ud800", "a" * 300])
    | st.sampled_from([10**30, 2**31, 2**63, 0, -1, 1, 2, 3, 7]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)
KEYS = sorted(
    {*values_of(DATA / "models" / FULL / "config.json"), *values_of(DATA / "models" / TOWER / "config.json")}
    | {
        "rope_scaling",
        "rope_parameters",
        "head_dim",
        "layer_types",
        "attention_bias",
        "mlp_bias",
        "pad_token_id",
    }
    | {"mm_vision_select_layer", "image_grid_pinpoints", "s2", "s2_scales", "torch_dtype", "pretraining_tp"}
)


CHANGES = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3)
EXAMPLES, MANY_EXAMPLES = 60, 1500
QUIETLY: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@given(changes=CHANGES, where=st.integers(0, 2))
@settings(max_examples=EXAMPLES, **QUIETLY)
def test_any_values_at_all(
    changes: dict, where: int, ours: Path, little_memory: None, fault_log: FaultLog
) -> None:
    """At the top of a config.json, in its text_config, in its vision_config."""
    check_values(changes, where, ours)
    fault_log("config.json with any values in any places", "refused by name, or harmless", REFUSED)


@pytest.mark.slow
@given(changes=CHANGES, where=st.integers(0, 2))
@settings(max_examples=MANY_EXAMPLES, **QUIETLY)
def test_many_more_values(changes: dict, where: int, ours: Path, little_memory: None) -> None:
    """The same for longer."""
    check_values(changes, where, ours)


def check_values(changes: dict, where: int, ours: Path) -> None:
    """A configuration with these changes opens, or the error names its folder."""
    values = values_of(ours / "config.json")
    part = (None, "text_config", "vision_config")[where]
    with Changed(
        ours / "config.json", values | (changes if part is None else {part: values[part] | changes})
    ):
        told = refusal(ours)
    assert told is None or str(ours) in told
