"""--mm_use_im_start_end and --mm_use_im_patch_token: rows that are added, trained, saved, and taken over."""

from pathlib import Path

import pytest
import torch

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN
from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import EMBEDDINGS
from llava.model.contents import read_config
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from llava.tokenizer import load_tokenizer
from llava.train.picture_tokens import add_tokens, load_start_end_rows, missing_tokens
from tests.parity.golden import golden_folder, golden_tokenizer
from tests.parity.training import Run, run_training, working_folder
from tests.tiny import tiny_model

VOCABULARY = 1000
START_END = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the golden paths are relative to."""
    return working_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def _there(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)


PLAIN = (
    *("--model_name_or_path", "tiny-vicuna-v1.5", "--vision_tower", "tiny-clip"),
    *("--mm_projector_type", "mlp2x_gelu", "--mm_vision_select_layer", "-2"),
)


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> Run:
    """Two steps."""
    common = ("--data_path", "data/traj8.json", "--image_folder", "data", "--dataloader_num_workers", "0")
    steps = ("--max_steps", "2", "--learning_rate", "1e-2", "--logging_steps", "1", "--save_strategy", "no")
    return run_training([*common, *steps, *flags], folder, monkeypatch)


def test_new_rows_are_the_mean_of_the_old_ones() -> None:
    model, tokenizer = tiny_model(), load_tokenizer(golden_folder("tiny-vicuna-v1.5"))
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    before = [layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.lm_head)]
    tokens = missing_tokens(tokenizer, patch=True, start_end=True)
    add_tokens(model, tokenizer, tokens)
    assert tokenizer.convert_tokens_to_ids(tokens) == [VOCABULARY, VOCABULARY + 1, VOCABULARY + 2]
    for old, layer in zip(before, (model.get_input_embeddings(), model.lm_head), strict=True):
        assert torch.equal(layer.weight[:VOCABULARY], old)
        assert torch.allclose(layer.weight[VOCABULARY:], old.mean(0).expand(3, -1), atol=1e-7)
    assert model.config.text_config.vocab_size == VOCABULARY + 3
    assert missing_tokens(tokenizer, patch=True, start_end=True) == []


def test_rows_beyond_the_tokenizer_are_used_first() -> None:
    model, tokenizer = tiny_model(), load_tokenizer(golden_folder("tiny-vicuna-v1.5"))
    model.resize_token_embeddings(VOCABULARY + 24, mean_resizing=False)
    add_tokens(model, tokenizer, list(START_END))
    weight = model.get_input_embeddings().weight
    assert weight.shape[0] == VOCABULARY + 24
    assert torch.allclose(weight[VOCABULARY : VOCABULARY + 2], weight[:VOCABULARY].mean(0).expand(2, -1))


def test_full_training_writes_a_checkpoint_with_the_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path / "out", monkeypatch, *PLAIN, "--mm_use_im_start_end", "True")
    assert run.weights[EMBEDDINGS].shape[0] == run.weights["lm_head.weight"].shape[0] == VOCABULARY + 2
    start, end = run.weights[EMBEDDINGS][VOCABULARY:]
    assert not torch.equal(start, end), "both must have trained"
    tokenizer, model, _, _ = load_pretrained_model(str(run.folder))
    assert tokenizer.convert_tokens_to_ids(list(START_END)) == [VOCABULARY, VOCABULARY + 1]
    assert model.config.mm_use_im_start_end
    again = train(tmp_path / "again", monkeypatch, "--model_name_or_path", str(run.folder))
    assert again.weights[EMBEDDINGS].shape[0] == VOCABULARY + 2
    assert read_config(again.folder)["mm_use_im_start_end"] is True


def test_projector_stage_trains_and_saves_the_input_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the second stage begins with the trained rows of the two tokens, and only these.

    (Not with the template plain, which writes neither token, as in the original.)
    """
    flags = ("--tune_mm_mlp_adapter", "True", "--mm_use_im_start_end", "True")
    first = train(tmp_path / "first", monkeypatch, *PLAIN, *flags)
    base = read_tensors(golden_folder("tiny-vicuna-v1.5") / "model.safetensors")[EMBEDDINGS].float()
    trained = first.weights[EMBEDDINGS]
    assert set(first.weights) == {EMBEDDINGS} | {
        f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    mean = base.mean(0)
    assert (trained[VOCABULARY:] - mean).norm(dim=1).min() > 1e-2, "the rows must have trained"
    second = train(
        tmp_path / "second",
        monkeypatch,
        *PLAIN,
        *("--mm_use_im_start_end", "True", "--learning_rate", "0"),
        *("--pretrain_mm_mlp_adapter", str(first.folder / PROJECTOR_NAME)),
    )
    assert torch.equal(second.weights[EMBEDDINGS][VOCABULARY:], trained[VOCABULARY:])
    assert torch.equal(second.weights[EMBEDDINGS][:VOCABULARY], base)
    head = second.weights["lm_head.weight"]
    assert torch.allclose(head[VOCABULARY:], head[:VOCABULARY].mean(0).expand(2, -1))


def test_projector_stage_with_tokens_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ("--tune_mm_mlp_adapter", "True", "--mm_use_im_start_end", "True")
    flags = (*PLAIN, *tokens, "--save_strategy", "steps", "--save_steps", "1")
    whole = train(tmp_path / "whole", monkeypatch, *flags)
    (tmp_path / "cut").mkdir()
    (tmp_path / "whole" / "checkpoint-1").rename(tmp_path / "cut" / "checkpoint-1")
    resumed = train(tmp_path / "cut", monkeypatch, *flags)
    assert len(resumed.rates) == 1, "it must have gone on from the first step"
    assert resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(whole.weights[key], resumed.weights[key]) for key in whole.weights)


@pytest.mark.parametrize("rows", [2, VOCABULARY + 2, 3])
def test_rows_of_a_projector_file(rows: int, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), load_tokenizer(golden_folder("tiny-vicuna-v1.5"))
    model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    add_tokens(model, tokenizer, list(START_END))
    weight = model.get_input_embeddings().weight
    stored = torch.randn(rows, weight.shape[1])
    torch.save({EMBEDDINGS: stored}, tmp_path / PROJECTOR_NAME)
    if rows == 3:
        with pytest.raises(UsageError, match=r"embeddings of \(3, 32\); wanted are all \(1002, 32\)"):
            load_start_end_rows(model, tokenizer, tmp_path / PROJECTOR_NAME)
        return
    load_start_end_rows(model, tokenizer, tmp_path / PROJECTOR_NAME)
    assert torch.equal(weight[VOCABULARY:], stored[-2:])


def test_a_checkpoint_keeps_its_tokens_unless_a_flag_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("--model_name_or_path", "llava-v1.5-tiny-imse")
    kept = train(tmp_path / "kept", monkeypatch, *model)
    without = train(tmp_path / "without", monkeypatch, *model, "--mm_use_im_start_end", "False")
    assert [read_config(run.folder)["mm_use_im_start_end"] for run in (kept, without)] == [True, False]
    assert kept.losses[0] != pytest.approx(without.losses[0], abs=1e-3)


def test_the_patch_token_makes_the_vocabulary_one_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*PLAIN, "--learning_rate", "0")
    plain = train(tmp_path / "plain", monkeypatch, *flags)
    run = train(tmp_path / "out", monkeypatch, *flags, "--mm_use_im_patch_token", "True")
    assert run.weights[EMBEDDINGS].shape[0] == VOCABULARY + 1
    assert read_config(run.folder)["mm_use_im_patch_token"] is True
    assert run.losses[0] == pytest.approx(plain.losses[0], abs=0.05), "one more word in the softmax"
    assert len(load_tokenizer(run.folder)) == VOCABULARY + 1 == len(golden_tokenizer("nonlegacy")) + 1


def test_an_adapter_cannot_hold_new_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--mm_use_im_start_end", "True", "--lora_enable", "True")
    with pytest.raises(UsageError, match="with --lora_enable: the base lacks <im_start>"):
        train(tmp_path, monkeypatch, *PLAIN, *flags)
    run = train(tmp_path / "out", monkeypatch, "--model_name_or_path", "llava-v1.5-tiny-imse", *flags)
    tokenizer, model, _, _ = load_pretrained_model(str(run.folder))
    assert model.config.mm_use_im_start_end
    assert missing_tokens(tokenizer, patch=False, start_end=True) == []
