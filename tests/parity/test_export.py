"""Written checkpoints: transformers alone gives our ids and logits; the original's names and files return."""

import json
import runpy
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen2Config

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.model import export as command
from llava.model.builder import load_pretrained_model, new_model
from llava.model.check_export import check, outputs_here
from llava.model.config import LlavaConfig
from llava.model.export import export
from llava.model.key_names import OURS, original_table
from llava.model.llava import LlavaForCausalLM
from llava.model.lora import LoraSettings, add_lora
from llava.train.saving import CheckpointWriter
from tests.parity.golden import BASES, DATA, golden_folder, golden_tokenizer, open_shared
from tests.parity.test_hf_layout import theirs, write
from tests.tiny import tiny_text

FULL = "llava-v1.5-tiny"
LINEAR = "llava-v1.5-tiny-linear"
START_END = "llava-v1.5-tiny-imse"
LORA = "llava-v1.5-tiny-lora"
PRETRAIN = "llava-v1.5-tiny-pretrain"
WORST = 1e-5  # fp32 of the same stored numbers: 0 seen in all exports here (the same operations)
MERGED_ATOL = 2e-2  # merged weights are stored in fp16, as the base is: 5.1e-3 seen; no adapter: over 0.2
ROWS = 1024


def worst_of(source: Path, out: Path, *, to: str, base: Path | None = None, dtype: str = "auto") -> float:
    """Export, with its own check in a fresh process."""
    return export(str(source), str(base) if base else None, out, to=to, dtype=dtype)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check without a process of its own (3 s each); the fixture `exported` has the real one."""

    def check_here(out: Path, to: str, expected: dict[str, torch.Tensor]) -> float:
        folder = out.with_name(f"{out.name}-expected")
        folder.mkdir()
        save_file(expected, folder / "expected.safetensors")
        return check(Namespace(folder=out, to=to, expected=folder / "expected.safetensors"))

    monkeypatch.setattr(command, "check_apart", check_here)


def read(folder: Path, name: str = "config.json") -> dict:
    """One JSON file."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def outputs(folder: Path, base: Path | None = None) -> dict[str, torch.Tensor]:
    """Ids and logits of the three inputs by this package."""
    return outputs_here(*load_pretrained_model(str(folder), str(base) if base else None)[:3])


def base_of(name: str) -> Path | None:
    """What --model-base names."""
    return golden_folder(BASES[name]) if name in BASES else None


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model as transformers' LLaVA, and that one back in the original's layout."""
    folder = tmp_path_factory.mktemp("exported")
    assert worst_of(golden_folder(FULL), folder / "hf", to="hf") <= WORST
    assert worst_of(folder / "hf", folder / "original", to="llava") <= WORST
    return folder


def test_names_and_types_of_transformers_layout(exported: Path) -> None:
    stored = load_file(exported / "hf" / "model.safetensors")
    wanted = open_shared(FULL)[1].state_dict()
    assert {OURS.to_memory(key) for key in stored} == set(wanted)
    starts = {key.split(".")[0] for key in stored}
    assert starts == {"language_model", "vision_tower", "multi_modal_projector"}
    assert {key.split(".")[1] for key in stored if key.startswith("vision_tower")} == {"vision_model"}
    with safe_open(exported / "hf" / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
    for key, value in stored.items():
        tower = key.startswith("vision_tower")
        assert value.dtype == (torch.float16 if tower else torch.bfloat16), key
        ours = wanted[OURS.to_memory(key)]
        assert torch.equal(value[: len(ours)].float(), ours), key
    head = stored["language_model.lm_head.weight"].float()
    assert len(head) == ROWS
    assert torch.equal(head[1000:], head[:1000].mean(0).bfloat16().float().expand(24, -1))


def test_configuration_and_processor_of_transformers_layout(exported: Path) -> None:
    config = read(exported / "hf")
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["text_config"]["architectures"] == ["LlamaForCausalLM"]
    assert config["image_token_index"] == 1000
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (-2, "default")
    assert (config["projector_hidden_act"], config["image_seq_length"]) == ("gelu", 16)
    assert (config["text_config"]["vocab_size"], config["text_config"]["rope_theta"]) == (ROWS, 1e4)
    processor = read(exported / "hf", "processor_config.json")
    assert (processor["num_additional_image_tokens"], processor["patch_size"]) == (1, 14)
    assert processor["vision_feature_select_strategy"] == "default"
    for pictures in (processor["image_processor"], read(exported / "hf", "preprocessor_config.json")):
        assert (pictures["image_processor_type"], pictures["do_pad"]) == ("LlavaImageProcessor", True)
    assert read(exported / "hf", "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    text = "".join(file.read_text(encoding="utf-8") for file in (exported / "hf").glob("*.json"))
    assert str(exported) not in text
    assert str(DATA) not in text


def test_the_original_layout_is_the_originals(exported: Path) -> None:
    """Names of tensors and of options as the original wrote them, less what training left there."""
    folder = exported / "original"
    stored = load_file(folder / "model.safetensors")
    golden = load_file(golden_folder(FULL) / "model.safetensors")
    assert stored.keys() == golden.keys()
    for key, value in golden.items():
        assert torch.equal(stored[key][: len(value)].to(value.dtype), value), key
    found, wanted = read(folder), read(golden_folder(FULL))
    assert set(wanted) - set(found) <= {"_name_or_path", "mm_projector_lr", "transformers_version"}
    other = {"vocab_size", "mm_vision_tower", "torch_dtype"}
    assert {key: found[key] for key in wanted if key in found and key not in other} == {
        key: wanted[key] for key in wanted if key in found and key not in other
    }
    tower = load_file(exported / "original-vision-tower" / "model.safetensors")
    clip = load_file(golden_folder("tiny-clip") / "model.safetensors")
    assert tower.keys() == clip.keys()
    assert all(torch.equal(tower[key], clip[key]) for key in clip)


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_answers_stay(exported: Path, layout: str) -> None:
    """The golden model was tuned until its answers mean something: greedy ids are equal."""
    _, model, _, _ = load_pretrained_model(str(exported / layout))
    ids = torch.tensor([[1, 292, IMAGE_TOKEN_INDEX, 638, 592]])
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    steps = {"do_sample": False, "max_new_tokens": 12}
    wanted = open_shared(FULL)[1].generate(ids, images=pixels, **steps)
    assert torch.equal(model.generate(ids, images=pixels, **steps), wanted)


@pytest.mark.parametrize(("name", "to"), [(LORA, "hf"), (PRETRAIN, "hf"), (LORA, "llava")])
@pytest.mark.usefixtures("one_process")
def test_parts_are_joined(name: str, to: str, tmp_path: Path) -> None:
    """A merged adapter, and a projector on its language model; the base alone answers otherwise."""
    assert worst_of(golden_folder(name), tmp_path / "out", to=to, base=base_of(name)) <= WORST
    found, wanted = outputs(tmp_path / "out"), outputs(golden_folder(name), base_of(name))
    others = outputs(golden_folder(PRETRAIN if name == LORA else LORA), base_of(name))
    for key in ("0.logits", "1.logits", "2.logits"):
        rows = found[key][..., : wanted[key].shape[-1]]
        torch.testing.assert_close(rows, wanted[key], atol=MERGED_ATOL, rtol=0)
        assert (others[key] - wanted[key]).abs().max() > 10 * MERGED_ATOL, "the adapter must matter"


@pytest.mark.parametrize("name", [LINEAR, START_END])
@pytest.mark.usefixtures("one_process")
def test_what_transformers_lacks_is_refused_and_goes_to_the_original(name: str, tmp_path: Path) -> None:
    option = "mm_projector_type is 'linear'" if name == LINEAR else "mm_use_im_start_end is True"
    with pytest.raises(UsageError, match=option):
        export(str(golden_folder(name)), None, tmp_path / "hf", to="hf")
    assert not (tmp_path / "hf").exists()
    assert worst_of(golden_folder(name), tmp_path / "out", to="llava") <= WORST
    golden = load_file(golden_folder(name) / "model.safetensors")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == golden.keys()


def own_model(text: Any, folder: Path, **changes: object) -> LlavaForCausalLM:
    """A random model of our layout in a folder, with the tower's sizes of the golden models."""
    vision = open_shared(FULL)[1].config.vision_config
    torch.manual_seed(5)
    model = new_model(
        LlavaConfig(text_config=text, vision_config=vision, **changes),
        dtype=torch.float32,
        attn_implementation="sdpa",
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    CheckpointWriter("full", golden_tokenizer("nonlegacy"), open_shared(FULL)[2]).write(model, folder)
    return model


def qwen(**changes: object) -> Qwen2Config:
    """Two layers; a vocabulary with one spare row, which becomes that of <image>."""
    return Qwen2Config(
        vocab_size=1001,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 5e4},
        **changes,
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.usefixtures("one_process")
def test_another_family_and_a_tied_head(tied: bool, tmp_path: Path) -> None:
    own_model(qwen(tie_word_embeddings=tied), tmp_path / "own", conv_template="chatml_direct")
    assert worst_of(tmp_path / "own", tmp_path / "hf", to="hf") <= WORST
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert any("lm_head" in key for key in stored) is not tied
    config = read(tmp_path / "hf")
    assert config["text_config"]["architectures"] == ["Qwen2ForCausalLM"]
    assert (config["text_config"]["vocab_size"], config["image_token_index"]) == (ROWS, 1000)
    assert load_pretrained_model(str(tmp_path / "hf"))[1].config.conv_template == "chatml_direct"
    with pytest.raises(UsageError, match="'qwen2' model; the original has llama, mistral"):
        export(str(tmp_path / "own"), None, tmp_path / "original", to="llava")


POSITIONS = {
    "mistral": (MistralConfig, {"rope_type": "default", "rope_theta": 5e4}),
    "linear": (LlamaConfig, {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
    "llama3": (
        LlamaConfig,
        {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
}


@pytest.mark.parametrize("to", ["hf", "llava"])
@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.usefixtures("one_process")
def test_positions_are_written_in_older_words_and_read_back(kind: str, to: str, tmp_path: Path) -> None:
    family, rope = POSITIONS[kind]
    window = {"sliding_window": 7} if kind == "mistral" else {}
    text = tiny_text(family, vocab_size=1000, rope_parameters=dict(rope), **window)
    own_model(text, tmp_path / "own")
    assert worst_of(tmp_path / "own", tmp_path / "out", to=to) <= WORST
    stored = read(tmp_path / "out")
    stored = stored.get("text_config", stored)
    assert "rope_parameters" not in stored
    assert (stored["rope_scaling"] is None) is (kind == "mistral")
    if kind == "linear":
        assert stored["rope_scaling"] == {"type": "linear", "factor": 2.0}
    again = load_pretrained_model(str(tmp_path / "out"))[1].config.text_config
    assert {key: again.rope_parameters[key] for key in rope} == rope
    assert again.model_type == text.model_type
    assert getattr(again, "sliding_window", None) == getattr(text, "sliding_window", None)


@pytest.mark.usefixtures("one_process")
def test_transformers_own_tied_model_is_written_again(tmp_path: Path) -> None:
    """Its vocabulary has spare rows already, and its pictures are cropped."""
    write(theirs("llama", tied=True, vision_feature_layer=-1), tmp_path / "theirs")
    assert worst_of(tmp_path / "theirs", tmp_path / "hf", to="hf") <= WORST
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "hf"))
    assert {OURS.to_memory(key) for key in after} == {
        key if key.startswith("model.") else f"model.{key.replace('language_model.model', 'language_model')}"
        for key in before
    }
    pictures = read(tmp_path / "hf", "preprocessor_config.json")
    assert pictures["image_processor_type"] == "CLIPImageProcessor"
    assert worst_of(tmp_path / "theirs", tmp_path / "original", to="llava") <= WORST
    assert not any("lm_head" in key for key in load_file(tmp_path / "original" / "model.safetensors"))


@pytest.mark.usefixtures("one_process")
def test_deeper_projectors_and_class_tokens(tmp_path: Path) -> None:
    text = open_shared(FULL)[1].config.text_config
    own_model(text, tmp_path / "deep", mm_projector_type="mlp3x_gelu", mm_vision_select_layer=-1)
    with pytest.raises(UsageError, match="mm_projector_type is 'mlp3x_gelu'"):
        export(str(tmp_path / "deep"), None, tmp_path / "hf", to="hf")
    assert worst_of(tmp_path / "deep", tmp_path / "out", to="llava", dtype="float16") <= WORST
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    table = original_table("mlp3x_gelu")
    assert "model.mm_projector.4.bias" in stored
    assert [table.to_disk(table.to_memory(key)) for key in stored] == list(stored)
    own_model(text, tmp_path / "full", mm_vision_select_feature="cls_patch", image_aspect_ratio="square")
    assert worst_of(tmp_path / "full", tmp_path / "hf", to="hf") <= WORST
    assert read(tmp_path / "hf")["vision_feature_select_strategy"] == "full"


@pytest.mark.usefixtures("one_process")
def test_our_adapter_opens_by_peft_on_an_export(exported: Path, tmp_path: Path) -> None:
    """PeftModel on transformers' class, where language model and projector were tuned here."""
    folder = Path(shutil.copytree(golden_folder(FULL), tmp_path / "base"))
    shutil.copytree(golden_folder("tiny-clip"), tmp_path / "tiny-clip")
    tokenizer, model, processor, _ = load_pretrained_model(str(folder))
    wrapped = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0)).eval()
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
                weight.add_(0.1 * noise)
    CheckpointWriter("lora", tokenizer, processor, folder).write(wrapped, tmp_path / "adapter")
    base = LlavaForConditionalGeneration.from_pretrained(str(exported / "hf"), dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    ids = torch.tensor([[1, 292, *[IMAGE_TOKEN_INDEX] * 16, 638, 592]])
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = wrapped(input_ids=ids, pixel_values=pixels).logits
        found = adapted(input_ids=ids.where(ids >= 0, 1000), pixel_values=pixels).logits[..., :1000]
        before = open_shared(FULL)[1](input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(found, wanted, atol=WORST, rtol=0)
    assert (before - wanted).abs().max() > 0.1, "the adapter must matter"
    for to in ("hf", "llava"):
        assert worst_of(tmp_path / "adapter", tmp_path / to, to=to) <= WORST


def script(name: str) -> Any:
    """The main function of a script."""
    return runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / name))["main"]


def test_the_originals_command_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = script("merge_lora_weights.py")
    base = base_of(LORA)
    arguments = ["--model-path", str(golden_folder(LORA)), "--model-base", str(base)]
    main([*arguments, "--save-model-path", str(tmp_path / "merged")])
    found, wanted = outputs(tmp_path / "merged"), outputs(golden_folder(LORA), base)
    torch.testing.assert_close(found["2.logits"], wanted["2.logits"], atol=MERGED_ATOL, rtol=0)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--save-model-path", str(tmp_path / "merged")])
    assert stopped.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_originals_command_extracts_a_projector(exported: Path, tmp_path: Path) -> None:
    """From every kind of checkpoint: the names of the original, and the numbers that are stored."""
    main = script("extract_mm_projector.py")
    start = "model.mm_projector."
    stored = load_file(golden_folder(FULL) / "model.safetensors")
    full = {key: value for key, value in stored.items() if key.startswith(start)}
    lora = torch.load(golden_folder(LORA) / "non_lora_trainables.bin", weights_only=True)
    lora = {key.removeprefix("base_model.model."): value for key, value in lora.items()}
    stage = torch.load(golden_folder(PRETRAIN) / "mm_projector.bin", weights_only=True)
    sources = [(golden_folder(FULL), full), (exported / "hf", full), (exported / "original", full)]
    sources += [(golden_folder(LORA), lora), (golden_folder(PRETRAIN), stage)]
    for number, (folder, wanted) in enumerate(sources):
        file = tmp_path / str(number) / "mine.bin"
        flag = ("--model-path", "--model_name_or_path")[number % 2]
        main([flag, str(folder), "--output", str(file)])
        found = torch.load(file, weights_only=True)
        assert found.keys() == wanted.keys()
        assert len(found) == 4
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    linear = load_file(golden_folder(LINEAR) / "model.safetensors")
    main(["--model-path", str(golden_folder(LINEAR)), "--output", str(tmp_path / "linear.bin")])
    assert torch.load(tmp_path / "linear.bin", weights_only=True).keys() == {
        key for key in linear if key.startswith(start)
    }
    with pytest.raises(SystemExit):
        main(["--model-path", str(golden_folder("tiny-vicuna-v1.5")), "--output", str(tmp_path / "x.bin")])
