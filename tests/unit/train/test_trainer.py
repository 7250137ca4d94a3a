"""Parts of the training recipe that need no run: optimiser groups, wrong output folders, shown samples."""

from pathlib import Path

import pytest
import torch

from llava.errors import UsageError
from llava.model.lora import LoraSettings, add_lora, target_pattern
from llava.processing import Encoded
from llava.train import recipe
from llava.train.resuming import check_output_folder
from llava.train.saving import apart
from llava.train.summary import group_runs, module_table, steps_of
from llava.train.train import train
from llava.train.trainer import optimizer_groups
from tests.tiny import tiny_model


def test_projector_has_its_own_rate() -> None:
    model = tiny_model()
    decayed = {
        name for name, _ in model.named_parameters() if not name.endswith("bias") and "norm" not in name
    }
    groups = optimizer_groups(model, decayed, 0.1, 3e-5)
    assert [(group["weight_decay"], group.get("lr")) for group in groups] == [
        (0.1, None),
        (0.0, None),
        (0.1, 3e-5),
        (0.0, 3e-5),
    ]
    assert len(groups[2]["params"]) == len(groups[3]["params"]) == 2
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len(optimizer_groups(model, decayed, 0.1, None)) == 2


def test_lora_hits_the_language_model_only() -> None:
    model = tiny_model()
    wrapped = add_lora(model, LoraSettings(rank=2, alpha=4, dropout=0.0, bias="all"))
    trained = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert trained
    assert not [name for name in trained if "vision_tower" in name or "lm_head" in name]
    assert r"model\.language_model\." in target_pattern(tiny_model())
    with pytest.raises(UsageError, match="--lora_r"):
        add_lora(tiny_model(), LoraSettings(rank=0, alpha=4, dropout=0.0))


def test_output_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="finished run"):
        check_output_folder(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="is a file"):
        check_output_folder(file)


def test_pieces_of_one_buffer_are_taken_apart() -> None:
    """What ZeRO-3 gathers on a CPU; safetensors refuses to write it."""
    buffer = torch.arange(6.0)
    whole = torch.ones(2)
    state = apart({"a": buffer[:4].view(2, 2), "b": buffer[4:], "whole": whole})
    assert [value.untyped_storage().nbytes() for value in state.values()] == [16, 8, 8]
    assert torch.equal(state["b"], buffer[4:])
    assert state["whole"] is whole, "nothing else is copied"


@pytest.mark.parametrize(("given", "flag"), [("flash_attention_2", "auto"), ("eager", "eager")])
def test_train_is_called_as_the_originals_function(
    given: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(recipe, "run", seen.append)
    argv = ["--model_name_or_path", "base", "--data_path", "train.json", "--output_dir", "out"]
    monkeypatch.setattr("sys.argv", ["train_mem.py", *argv])
    train(attn_implementation=given)
    train(argv)
    assert seen == [[*argv, "--attn_implementation", flag], argv]


def test_summary_shows_parts_and_runs() -> None:
    table = module_table(tiny_model().named_parameters())
    assert [line.split()[0] for line in table.splitlines()[1:]] == [
        "vision_tower",
        "multi_modal_projector",
        "language_model",
        "lm_head",
    ]
    encoded = Encoded([1, -200, -200, 5, 6], [-100, -100, -100, -100, 6], 3, 1)
    assert group_runs(encoded) == [
        ("context", [1]),
        ("image", [-200, -200]),
        ("context", [5]),
        ("target", [6]),
    ]


def test_steps_count_the_last_small_batch() -> None:
    assert steps_of(17, global_batch=8, epochs=2, max_steps=-1) == 6
    assert steps_of(17, global_batch=8, epochs=2, max_steps=4) == 4
