"""Readers of the original's checkpoints: what decides, what is refused, and where parts are looked for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, MistralConfig

from llava.errors import UsageError
from llava.model.builder import is_llava, load_pretrained_model, read_contents
from llava.model.config import LlavaConfig
from llava.model.key_names import original_table
from llava.model.llava import LlavaForCausalLM
from llava.model.lora import LoraSettings, add_lora
from llava.train.saving import CheckpointWriter
from tests.parity.golden import BASES, DATA, golden_folder, open_shared
from tests.tiny import tiny_text

FULL = "llava-v1.5-tiny"
LORA = "llava-v1.5-tiny-lora"
PRETRAIN = "llava-v1.5-tiny-pretrain"
COMMIT = "0123456789" * 4
MERGED_ATOL = 2e-5  # fp32, merged weights are rounded once: 3.9e-6 seen, of values up to 6.7
TOWER_KEY = "model.vision_tower.vision_tower.vision_model.post_layernorm.weight"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A copy of all golden models, to be changed."""
    return Path(shutil.copytree(DATA / "models", tmp_path / "models"))


def change_config(folder: Path, **changes: object) -> None:
    """Change values in config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def change_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Replace or (None) remove tensors of model.safetensors."""
    file = folder / "model.safetensors"
    weights = load_file(file) | changes
    save_file({key: value for key, value in weights.items() if value is not None}, file)


def same_weights(folder: Path, name: str, base: Path | None = None) -> bool:
    """Whether a folder opens as the same model as a golden one."""
    _, model, _, _ = load_pretrained_model(str(folder), str(base) if base else None)
    wanted = open_shared(name)[1].state_dict()
    found = model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", [FULL, "llava-v1.5-tiny-linear", "llava-v1.5-tiny-imse"])
def test_names_map_two_ways(name: str) -> None:
    stored = list(load_file(golden_folder(name) / "model.safetensors"))
    table = original_table(open_shared(name)[1].config.mm_projector_type)
    assert [table.to_disk(table.to_memory(key)) for key in stored] == stored
    assert {table.to_memory(key) for key in stored} == set(open_shared(name)[1].state_dict())


@pytest.mark.parametrize("name", [FULL, LORA, PRETRAIN])
@pytest.mark.parametrize("new", ["anything", "llava-lora-mpt", "mistral"])
def test_a_renamed_folder_changes_nothing(name: str, new: str, models: Path) -> None:
    (models / name).rename(models / new)
    base = models / BASES[name] if name in BASES else None
    assert same_weights(models / new, name, base)


def test_the_base_is_found_by_the_adapters_own_words(models: Path) -> None:
    assert same_weights(models / LORA, LORA)


def test_the_tower_is_found_wherever_it_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models / FULL
    assert same_weights(folder, FULL), "next to the checkpoint"
    (models / "tiny-clip").rename(models.parent / "eyes")
    with pytest.raises(UsageError, match="'tiny-clip' was not found"):
        load_pretrained_model(str(folder))
    change_config(folder, mm_vision_tower=str(models.parent / "eyes"))
    assert same_weights(folder, FULL), "by an absolute path"
    change_config(folder, mm_vision_tower="eyes")
    monkeypatch.chdir(models.parent)
    assert same_weights(folder, FULL), "in the working folder"
    assert same_weights(Path("models") / FULL, FULL)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_hub_ids_are_found_in_the_cache_and_unreachable_ones_named(models: Path, hub_cache: Path) -> None:
    change_config(models / FULL, mm_vision_tower="openai/some-clip")
    with pytest.raises(UsageError, match="'openai/some-clip' is neither a folder"):
        load_pretrained_model(str(models / FULL))
    for hub_id, name in (("openai/some-clip", "tiny-clip"), ("liuhaotian/some-llava", FULL)):
        entry = hub_cache / f"models--{hub_id.replace('/', '--')}"
        shutil.copytree(models / name, entry / "snapshots" / COMMIT)
        (entry / "refs").mkdir()
        (entry / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    shutil.rmtree(models / "tiny-clip")
    assert same_weights(models / FULL, FULL)
    _, model, _, _ = load_pretrained_model("liuhaotian/some-llava")
    assert torch.equal(model.lm_head.weight, open_shared(FULL)[1].lm_head.weight)


def test_the_tower_may_be_half_of_a_whole_clip(models: Path) -> None:
    """OpenAI's folders hold the text half too, and are in float32; the checkpoint has its tower rounded."""
    vision = open_shared(FULL)[1].config.vision_config.to_dict()
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(
        CLIPConfig(text_config=small | {"vocab_size": 9}, vision_config=vision, projection_dim=8)
    )
    clip.save_pretrained(str(models / "whole-clip"))
    shutil.copy(models / "tiny-clip" / "preprocessor_config.json", models / "whole-clip")
    change_config(models / FULL, mm_vision_tower="whole-clip")
    table = original_table("mlp2x_gelu")
    state = {f"model.vision_tower.{key}": value for key, value in clip.vision_model.state_dict().items()}
    change_weights(models / FULL, {table.to_disk(key): value.half() for key, value in state.items()})
    contents = read_contents(models / FULL)
    assert all(torch.equal(contents.weights[key], value) for key, value in state.items())
    assert contents.config.vision_config.hidden_size == 32
    load_pretrained_model(str(models / FULL))


def test_a_rounded_tower_gives_way_and_a_tuned_one_stays(models: Path) -> None:
    """The tower inside was stored in bfloat16; the original reloads the float16 one."""
    inside = load_file(models / FULL / "model.safetensors")[TOWER_KEY]
    key = original_table("mlp2x_gelu").to_memory(TOWER_KEY)
    named = load_file(models / "tiny-clip" / "model.safetensors")["vision_model.post_layernorm.weight"]
    assert torch.equal(read_contents(models / FULL).weights[key], named)
    tuned = inside.clone()
    tuned[0] += 1
    change_weights(models / FULL, {TOWER_KEY: tuned})
    assert torch.equal(read_contents(models / FULL).weights[key], tuned)


def test_the_tower_inside_needs_only_the_named_ones_config(models: Path) -> None:
    (models / "tiny-clip" / "model.safetensors").unlink()
    key = original_table("mlp2x_gelu").to_memory(TOWER_KEY)
    inside = load_file(models / FULL / "model.safetensors")[TOWER_KEY]
    assert torch.equal(read_contents(models / FULL).weights[key], inside)
    load_pretrained_model(str(models / FULL))


def test_a_checkpoint_without_a_tower_takes_the_named_one(models: Path) -> None:
    keys = load_file(models / FULL / "model.safetensors")
    change_weights(models / FULL, {key: None for key in keys if "vision_tower" in key})
    assert same_weights(models / FULL, FULL)


@pytest.mark.parametrize("shards", [1, 3])
def test_old_weight_files_open(shards: int, models: Path) -> None:
    folder = models / FULL
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    weights["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
        assert same_weights(folder, FULL)
        return
    keys = sorted(weights)
    places = {key: f"pytorch_model-{number % shards}.bin" for number, key in enumerate(keys)}
    for name in set(places.values()):
        torch.save({key: weights[key] for key in keys if places[key] == name}, folder / name)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    assert same_weights(folder, FULL)
    (folder / "pytorch_model-1.bin").unlink()
    with pytest.raises(UsageError, match=r"pytorch_model-1\.bin"):
        load_pretrained_model(str(folder))


def test_pickled_code_is_not_run(models: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (models / "ran",))

    torch.save({"model.norm.weight": Harmful()}, models / FULL / "pytorch_model.bin")
    (models / FULL / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"pytorch_model\.bin holds no tensors that can be read safely"):
        load_pretrained_model(str(models / FULL))
    assert not (models / "ran").exists()


@pytest.mark.parametrize(
    "key", ["model.norm.weight", "lm_head.weight", "model.mm_projector.2.bias", TOWER_KEY], ids=str
)
def test_missing_renamed_and_misshapen_tensors_are_named(key: str, models: Path) -> None:
    tensor = load_file(models / FULL / "model.safetensors")[key]
    folder = models / FULL
    change_weights(folder, {key: None})
    with pytest.raises(UsageError, match=rf"1 missing \({key}\)"):
        load_pretrained_model(str(folder))
    change_weights(folder, {f"other.{key}": tensor})
    with pytest.raises(UsageError, match=f"'other.{key}'"):
        load_pretrained_model(str(folder))
    change_weights(folder, {f"other.{key}": None, key: torch.cat([tensor, tensor])})
    with pytest.raises(UsageError, match=rf"1 of a wrong shape \({key} is"):
        load_pretrained_model(str(folder))
    change_weights(folder, {key: tensor, "model.layers.7.mlp.up_proj.weight": tensor.clone()})
    with pytest.raises(UsageError, match=r"1 unexpected \(model\.layers\.7\.mlp\.up_proj\.weight\)"):
        load_pretrained_model(str(folder))


def test_a_damaged_adapter_is_refused_by_name(models: Path) -> None:
    folder = models / LORA
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    save_file({name: value for name, value in weights.items() if name != key}, file)
    with pytest.raises(UsageError, match=r"1 missing \(.*layers\.1\.mlp\.up_proj\.lora_B"):
        load_pretrained_model(str(folder))
    save_file(weights | {key: weights[key][:, :4].contiguous()}, file)
    with pytest.raises(UsageError, match=r"wrong shape \(.*layers\.1\.mlp\.up_proj\.lora_B"):
        load_pretrained_model(str(folder))
    save_file(weights | {key.replace("layers.1", "layers.9"): weights[key].clone()}, file)
    with pytest.raises(UsageError, match=r"layers\.9\.mlp\.up_proj"):
        load_pretrained_model(str(folder))
    save_file(weights, file)
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(UsageError, match=r"no non_lora_trainables\.bin"):
        load_pretrained_model(str(folder))


def test_an_adapter_in_a_bin_file_opens(models: Path) -> None:
    file = models / LORA / "adapter_model.safetensors"
    torch.save(load_file(file), models / LORA / "adapter_model.bin")
    file.unlink()
    assert same_weights(models / LORA, LORA)


def test_an_adapter_on_a_whole_llava_keeps_its_own_projector(models: Path) -> None:
    """finetune_task_lora.sh goes on from a LLaVA: the base brings a projector, the adapter its tuned one."""
    base = models / "llava-v1.5-tiny-imse"
    change_config(models / LORA, vocab_size=1002)
    adapted = read_contents(models / LORA, str(base))
    tuned = torch.load(models / LORA / "non_lora_trainables.bin", weights_only=True)
    key = "model.multi_modal_projector.linear_1.weight"
    assert torch.equal(adapted.weights[key], tuned["base_model.model.model.mm_projector.0.weight"])
    assert not torch.equal(adapted.weights[key], read_contents(base).weights[key])
    tokenizer, model, _, _ = load_pretrained_model(str(models / LORA), str(base))
    assert len(tokenizer) == model.config.text_config.vocab_size == 1002


def test_a_projector_needs_a_base_and_a_lone_config_is_refused(models: Path) -> None:
    with pytest.raises(UsageError, match="--model-base"):
        load_pretrained_model(str(models / PRETRAIN))
    (models / PRETRAIN / "mm_projector.bin").unlink()
    with pytest.raises(UsageError, match="neither weights"):
        load_pretrained_model(str(models / PRETRAIN))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_aspect_ratio": "anyres_max_9"},
        {"image_grid_pinpoints": "(1x1),...,(6x6)", "image_aspect_ratio": "anyres"},
        {"mm_patch_merge_type": "spatial_pool"},
        {"s2": "yes"},
        {"s2_scales": "100,200", "s2": True},
        {"mm_projector_type": "resampler"},
        {"mm_vision_select_feature": "cls"},
        {"mm_vision_tower": None},
        {"model_type": "llava_mpt"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_options_that_are_not_supported_stop_with_their_name(changes: dict, models: Path) -> None:
    change_config(models / FULL, **changes)
    name, value = next(iter(changes.items()))
    wanted = value if name == "model_type" else name
    with pytest.raises(UsageError, match=str(wanted)):
        load_pretrained_model(str(models / FULL))


def test_a_tower_of_another_kind_is_refused(models: Path) -> None:
    change_config(models / FULL, mm_vision_tower="tiny-vicuna-v1.5")
    with pytest.raises(UsageError, match="mm_vision_tower names a 'llama' model"):
        load_pretrained_model(str(models / FULL))


def test_training_goes_on_from_a_whole_original_only(models: Path) -> None:
    assert is_llava(models / FULL)
    assert not is_llava(models / "tiny-vicuna-v1.5")
    assert read_contents(models / FULL).picture_folder == models.resolve() / "tiny-clip"


def test_configurations_keep_the_originals_names() -> None:
    config = open_shared("llava-v1.5-tiny-imse")[1].config
    stored = json.loads((golden_folder("llava-v1.5-tiny-imse") / "config.json").read_text(encoding="utf-8"))
    ours = {"mm_projector_lr"}  # null there, left out here
    names = {name for name in stored if name.startswith(("mm_", "tokenizer_", "image_", "use_mm", "tune_"))}
    assert "mm_use_im_start_end" in names
    for name in names - ours:
        assert getattr(config, name) == stored[name], name
    assert config.conv_template == "v1"
    assert open_shared(FULL)[3] == 2048


def test_class_tokens_and_identity_projectors(models: Path) -> None:
    """Options of old configurations; width 32 fits an identity projector here."""
    folder = models / "llava-v1.5-tiny-linear"
    change_config(folder, mm_vision_select_feature="cls_patch", mm_vision_select_layer=-1)
    _, model, _, _ = load_pretrained_model(str(folder))
    assert model.num_patches == 17
    assert model.encode_images(torch.zeros(1, 3, 56, 56)).shape == (1, 17, 32)
    keys = [key for key in load_file(folder / "model.safetensors") if "mm_projector" in key]
    change_weights(folder, dict.fromkeys(keys))
    change_config(folder, mm_projector_type="identity", model_type="llava")
    _, model, _, _ = load_pretrained_model(str(folder))
    assert model.encode_images(torch.zeros(1, 3, 56, 56)).shape == (1, 17, 32)
    assert not list(model.model.multi_modal_projector.parameters())


def test_tokens_around_pictures_are_added_where_the_tokenizer_lacks_them(models: Path) -> None:
    folder = models / "llava-v1.5-tiny-imse"
    plain = models / "tiny-vicuna-v1.5"
    (folder / "added_tokens.json").unlink()
    shutil.copy(plain / "tokenizer_config.json", folder)
    tokenizer, _, _, _ = load_pretrained_model(str(folder))
    assert tokenizer("<im_start><im_end>", add_special_tokens=False)["input_ids"] == [1000, 1001]
    change_config(models / FULL, mm_use_im_patch_token=True)
    assert len(load_pretrained_model(str(models / FULL))[0]) == 1000, "no row, and no prompt has it"
    change_config(models / FULL, mm_use_im_start_end=True)
    with pytest.raises(UsageError, match="mm_use_im_start_end"):
        load_pretrained_model(str(models / FULL))


def test_a_mistral_opens(tmp_path: Path) -> None:
    """A random one, written with the original's names and flat configuration."""
    text = tiny_text(MistralConfig, vocab_size=1000, head_dim=12, sliding_window=7, rope_theta=5e4)
    vision = open_shared(FULL)[1].config.vision_config
    torch.manual_seed(0)
    config = LlavaConfig(text_config=text, vision_config=vision)
    wanted = LlavaForCausalLM._from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for weight in wanted.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    folder = Path(shutil.copytree(golden_folder(FULL), tmp_path / "mistral"))
    shutil.copytree(golden_folder("tiny-clip"), tmp_path / "tiny-clip")
    table = original_table("mlp2x_gelu")
    state = {table.to_disk(key): value for key, value in wanted.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    values = text.to_dict()
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]  # as transformers 4 wrote it
    change_config(folder, **values | {"model_type": "llava_mistral"})
    _, model, _, _ = load_pretrained_model(str(folder))
    assert model.config.conv_template == "mistral_instruct"
    assert (model.config.text_config.model_type, model.config.text_config.sliding_window) == ("mistral", 7)
    inputs = {"input_ids": torch.arange(3, 23)[None], "images": None}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, wanted(**inputs).logits)


def test_an_adapter_that_was_trained_here_opens_on_an_original_base(models: Path) -> None:
    tokenizer, model, processor, _ = load_pretrained_model(str(models / FULL))
    wrapped = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0)).eval()
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
                weight.add_(0.1 * noise)
    CheckpointWriter("lora", tokenizer, processor, models / FULL).write(wrapped, models / "mine")
    _, again, _, _ = load_pretrained_model(str(models / "mine"))
    ids = torch.tensor([[1, 292, -200, 638, 592]])
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = (
            wrapped(input_ids=ids, images=pixels).logits,
            again(input_ids=ids, images=pixels).logits,
        )
        before = open_shared(FULL)[1](input_ids=ids, images=pixels).logits
    torch.testing.assert_close(found, wanted, atol=MERGED_ATOL, rtol=0)
    assert (before - wanted).abs().max() > 0.1, "the adapter must matter"
