"""Which weights train, with which decay and rate: the optimiser's groups and the layers of an adapter."""

from pathlib import Path

import pytest
from torch import nn

from llava.model.key_names import original_table
from llava.train.arguments import parse_arguments
from llava.train.checkpoint_store import CheckpointStore
from llava.train.manifest import Facts
from llava.train.recipe import choose_sampler, writer_of
from llava.train.starting_model import build_for_training, choose_trainable
from llava.train.trainer import LlavaTrainer
from tests.parity.golden import golden, golden_folder
from tests.parity.training import PROJECTOR_TYPE

GOLDEN = golden("train/param_groups.json")
TRAINED = {
    "all but the vision tower": [],
    "mm_projector only": ["--tune_mm_mlp_adapter", "True"],
    "LoRA matrices and mm_projector": ["--lora_enable", "True", "--lora_r", "8"],
}
WRAPPED = "base_model.model."


def trainer_of(case: dict, output_dir: Path) -> LlavaTrainer:
    """The trainer that the case's flags make, without a sample."""
    rate = case["mm_projector_lr"]
    argv = [
        *("--model_name_or_path", str(golden_folder("tiny-vicuna-v1.5"))),
        *("--vision_tower", str(golden_folder("tiny-clip"))),
        *("--mm_projector_type", PROJECTOR_TYPE, "--mm_vision_select_layer", "-2"),
        *("--data_path", "unused.json", "--output_dir", str(output_dir)),
        *("--learning_rate", str(case["learning_rate"]), "--weight_decay", str(case["weight_decay"])),
        *([] if rate is None else ["--mm_projector_lr", str(rate)]),
        *TRAINED[case["trainable"]],
    ]
    model_args, data_args, training_args = parse_arguments(argv)
    start = build_for_training(model_args, data_args, training_args)
    trainable = choose_trainable(start.model, model_args, training_args)
    return LlavaTrainer(
        trainable,
        training_args,
        sampler=choose_sampler([], training_args),
        writer=writer_of(start, model_args, training_args),
        store=CheckpointStore(output_dir, Facts({}), leads=True),
        train_dataset=[],
    )


def original_names(model: nn.Module) -> dict[int, str]:
    """The original's name of each parameter, by its identity."""
    table, names = original_table(PROJECTOR_TYPE), {}
    for name, parameter in model.named_parameters():
        prefix = WRAPPED if name.startswith(WRAPPED) else ""
        plain = name.removeprefix(WRAPPED).replace("modules_to_save.default.", "")
        names[id(parameter)] = prefix + table.to_disk(plain.replace("original_module.", ""))
    return names


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_groups_are_equal(name: str, tmp_path: Path) -> None:
    case = GOLDEN["cases"][name]
    trainer = trainer_of(case, tmp_path)
    optimizer = trainer.create_optimizer()
    assert type(optimizer).__name__ == case["optimizer"]
    names = original_names(trainer.model)
    wanted = [group for group in case["groups"] if group["params"]]  # ours leaves out an empty one
    assert len(optimizer.param_groups) == len(wanted)
    for found, group in zip(optimizer.param_groups, wanted, strict=True):
        assert sorted(names[id(weight)] for weight in found["params"]) == sorted(group["params"])
        for key in ("weight_decay", "lr", "eps"):
            assert found[key] == group[key], key
        assert list(found["betas"]) == group["betas"]


def test_adapters_are_on_the_layers_of_the_original(tmp_path: Path) -> None:
    model = trainer_of(GOLDEN["cases"]["lora_projector_lr"], tmp_path).model
    found = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert all(".language_model." in name for name in found)
    assert sorted({name.rsplit(".", 1)[-1] for name in found}) == GOLDEN["lora_target_modules_found"]
