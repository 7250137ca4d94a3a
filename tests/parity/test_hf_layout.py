"""transformers' own LLaVA opens here, in every key layout that it wrote: equal logits and greedy tokens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    Qwen2Config,
)
from transformers import LlavaConfig as TransformersConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from llava.model.key_names import HF_FLAT_TOWER, HF_NESTED, HF_NESTED_FLAT_TOWER, OURS, KeyTable, hf_table
from tests.parity.golden import golden_tokenizer
from tests.tiny import NUM_PATCHES, SPECIAL_IDS, picture, tiny_text, tiny_vision

IMAGE_TOKEN = 1000
"""Behind the 1000 pieces of the tokenizer; rows up to a multiple of 64 are padding, as llava-hf has them."""
ROWS = 1024
LOGITS_ATOL = 2e-5  # fp32: worst seen 0 (the same operations) of values up to 4.7; another layer gives 2
TABLES = {
    "from_config": HF_FLAT_TOWER,
    "llava_hf": OURS,
    "since_4_52": HF_NESTED,
    "flat": HF_NESTED_FLAT_TOWER,
}
FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def text_config(family: str, *, tied: bool = False) -> PretrainedConfig:
    """Two layers of a family; grouped-query attention."""
    return tiny_text(FAMILIES[family], vocab_size=IMAGE_TOKEN, tie_word_embeddings=tied, **SPECIAL_IDS)


def theirs(family: str, *, tied: bool = False, **options: object) -> LlavaForConditionalGeneration:
    """A random transformers LLaVA whose vocabulary was grown by the image token and padding."""
    vision = tiny_vision(num_layers=3)
    torch.manual_seed(3)
    config = TransformersConfig(
        text_config=text_config(family, tied=tied),
        vision_config=vision,
        image_token_index=IMAGE_TOKEN,
        image_seq_length=NUM_PATCHES,
        **options,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.resize_token_embeddings(ROWS)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
            else:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def write(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """What transformers writes, with a tokenizer and an image processor of today's and yesterday's form."""
    model.save_pretrained(str(folder))
    golden_tokenizer("nonlegacy").save_pretrained(str(folder))
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(
        str(folder)
    )


def rewrite(folder: Path, new: KeyTable) -> None:
    """Give the tensors of a folder the names of another layout."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    old = hf_table(tensors)
    renamed = {new.to_disk(old.to_memory(key)): value for key, value in tensors.items()}
    save_file(renamed, file, metadata={"format": "pt"})


def assert_equal_models(
    model: LlavaForConditionalGeneration, folder: Path, patches: int = NUM_PATCHES
) -> None:
    """Logits, and 12 greedy tokens, of two prompts with a picture."""
    _, ours, _, _ = load_pretrained_model(str(folder))
    pixels = torch.stack([picture("a"), picture("b")])
    short = torch.tensor([[1, 5, IMAGE_TOKEN_INDEX, 9, 10, 11], [1, 6, IMAGE_TOKEN_INDEX, 3, 4, 8]])
    ids = torch.stack([torch.cat([r[:2], torch.full((patches,), IMAGE_TOKEN), r[3:]]) for r in short])
    steps = {"do_sample": False, "max_new_tokens": 12}
    with torch.no_grad():
        wanted = model(input_ids=ids, pixel_values=pixels).logits
        found = ours(input_ids=short, images=pixels).logits
        told = model.generate(input_ids=ids, pixel_values=pixels, **steps)[:, ids.shape[1] :]
        other = ours(input_ids=short, images=pixels.flip(0)).logits
    torch.testing.assert_close(found, wanted, atol=LOGITS_ATOL, rtol=0)
    assert (other - wanted).abs().max() > 0.1, "the pictures must matter"
    assert torch.equal(ours.generate(short, images=pixels, **steps), told)
    assert len(set(told.flatten().tolist())) > 3, "the answers must differ"
    assert found.shape[-1] == ROWS
    assert ours.config.image_token_index == IMAGE_TOKEN


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", TABLES)
def test_every_layout_opens_equal(family: str, layout: str, tmp_path: Path) -> None:
    """Files named as the table says, and what transformers writes after it opened such a file."""
    model = theirs(family)
    write(model, tmp_path / "first")
    assert hf_table(load_file(tmp_path / "first" / "model.safetensors")) is HF_FLAT_TOWER
    rewrite(tmp_path / "first", TABLES[layout])
    assert hf_table(load_file(tmp_path / "first" / "model.safetensors")) is TABLES[layout]
    assert_equal_models(model, tmp_path / "first")
    again = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "first"), dtype=torch.float32).eval()
    write(again, tmp_path / "second")
    assert hf_table(load_file(tmp_path / "second" / "model.safetensors")) is TABLES[layout]
    assert_equal_models(model, tmp_path / "second")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_names_map_two_ways(table: KeyTable) -> None:
    keys = list(theirs("llama").state_dict())
    stored = [table.to_disk(key) for key in keys]
    assert len(set(stored)) == len(keys)
    assert [table.to_memory(key) for key in stored] == keys


def test_a_tied_head_is_tied(tmp_path: Path) -> None:
    model = theirs("qwen2", tied=True)
    write(model, tmp_path)
    assert not any("lm_head" in key for key in load_file(tmp_path / "model.safetensors"))
    assert_equal_models(model, tmp_path)


@pytest.mark.parametrize("layer", [-1, -3, [-2]])
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_layers_and_class_tokens(layer: int | list[int], strategy: str, tmp_path: Path) -> None:
    model = theirs("llama", vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    write(model, tmp_path)
    assert_equal_models(model, tmp_path, patches=NUM_PATCHES + (strategy == "full"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vision_feature_layer", [-2, -1]),
        ("projector_hidden_act", "relu"),
        ("multimodal_projector_bias", False),
        ("vision_feature_select_strategy", "pooled"),
        ("vision_config", {"model_type": "pixtral"}),
    ],
)
def test_options_that_are_not_supported_stop_with_their_name(
    name: str, value: object, tmp_path: Path
) -> None:
    write(theirs("llama"), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | {name: value}), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="pixtral" if isinstance(value, dict) else name):
        load_pretrained_model(str(tmp_path))


@pytest.mark.parametrize("layout", TABLES)
def test_damaged_files_are_refused_by_name(layout: str, tmp_path: Path) -> None:
    write(theirs("llama"), tmp_path)
    rewrite(tmp_path, TABLES[layout])
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    for memory in ("model.vision_tower.pre_layrnorm.bias", "model.multi_modal_projector.linear_2.weight"):
        key = TABLES[layout].to_disk(memory)
        save_file({name: value for name, value in weights.items() if name != key}, file)
        with pytest.raises(UsageError, match=rf"1 missing \({key}\)"):
            load_pretrained_model(str(tmp_path))
        save_file(weights | {key: torch.ones(3)}, file)
        with pytest.raises(UsageError, match=rf"1 of a wrong shape \({key} is \(3,\)"):
            load_pretrained_model(str(tmp_path))
        save_file(weights | {f"new.{key}": torch.ones(3)}, file)
        with pytest.raises(UsageError, match=rf"'new\.{key}'"):
            load_pretrained_model(str(tmp_path))


def test_processors_of_both_times_open(tmp_path: Path) -> None:
    """llava-hf crops (preprocessor_config.json); a processor that pads is written as one nested file."""
    write(theirs("llama"), tmp_path)
    assert (tmp_path / "preprocessor_config.json").is_file()
    _, model, processor, _ = load_pretrained_model(str(tmp_path))
    assert (model.config.image_aspect_ratio, processor.crop_size["height"]) == ("square", 8)
    (tmp_path / "preprocessor_config.json").unlink()
    tokenizer = golden_tokenizer("nonlegacy")
    images = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
    )
    LlavaProcessor(image_processor=images, tokenizer=tokenizer, patch_size=4).save_pretrained(str(tmp_path))
    assert not (tmp_path / "preprocessor_config.json").exists()
    _, model, processor, _ = load_pretrained_model(str(tmp_path))
    assert (model.config.image_aspect_ratio, processor.crop_size["height"]) == ("pad", 8)
