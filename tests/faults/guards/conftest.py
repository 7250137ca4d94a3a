"""Short trainings of a tiny model that are forked from one warm process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.faults.warm_process import WarmProcess, environments_of_ranks
from tests.parity.training import working_folder

NUM_STEPS = 4
WEIGHTS = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}
LORA = ("--lora_enable", "True", "--lora_r", "4")


@dataclass(frozen=True)
class Outcome:
    """How the ranks of a run ended: exit codes, seconds and what they wrote."""

    codes: list[int]
    seconds: list[float]
    logs: list[str]

    @property
    def log(self) -> str:
        """Of all ranks."""
        return "\n".join(self.logs)


class WarmTrainer:
    """Runs trainings in `folder`, where the models and the data are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = WarmProcess(folder)
        self.num_runs = 0

    def train(
        self,
        output_dir: Path,
        *flags: str,
        kind: str = "full",
        ranks: int = 1,
        fault: dict[str, Any] | None = None,
        timeout: float = 240,
    ) -> Outcome:
        """A run to its end, whichever it is."""
        self.num_runs += 1
        log = self.folder / f"log-{self.num_runs}-"
        argv = [
            *("--model_name_or_path", "llava-v1.5-tiny", "--data_path", "data.json"),
            *("--image_folder", "data", "--output_dir", str(output_dir), "--max_steps", str(NUM_STEPS)),
            *("--per_device_train_batch_size", str(4 // ranks), "--gradient_accumulation_steps", "2"),
            *("--learning_rate", "1e-3", "--save_strategy", "no", "--logging_steps", "1"),
            *("--dataloader_num_workers", "0", "--disable_tqdm", "True"),
            *(LORA if kind == "lora" else ()),
            *flags,
        ]
        logs = [Path(f"{log}{rank}") for rank in range(ranks)]
        code_file = {"LLAVA_EXIT_CODE_FILE": f"{log}code"}
        pids = [
            self.process.start(argv, log, environment=own | code_file, faults={"armed": fault})
            for own, log in zip(environments_of_ranks(ranks), logs, strict=True)
        ]
        ended = self.process.wait(pids, timeout)
        texts = [log.read_text(encoding="utf-8") for log in logs]
        return Outcome([one.status for one in ended], [one.seconds for one in ended], texts)


def weights_of(folder: Path, kind: str = "full") -> dict[str, Tensor]:
    """What a run ended with."""
    return load_file(folder / WEIGHTS[kind])


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert weight.equal(found[name]), name


def checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints in an output folder."""
    return sorted(entry.name for entry in folder.glob("checkpoint-*"))


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmTrainer]:
    """Sixteen samples, half of them without a picture: an epoch has two steps of two micro-batches."""
    folder = working_folder(tmp_path_factory.mktemp("guards"))
    rows = json.loads((folder / "data" / "traj8.json").read_text(encoding="utf-8"))
    for number, (text, answer) in enumerate((("One and two?", "three"), ("Two and two?", "four")) * 4):
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
        rows.append({"id": f"text{number}", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    trainer = WarmTrainer(folder)
    yield trainer
    trainer.process.close()


@pytest.fixture(scope="session")
def undisturbed(warm: WarmTrainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """The weights of runs without a fault, full and LoRA."""
    found = {}
    for kind in WEIGHTS:
        folder = tmp_path_factory.mktemp("undisturbed") / kind
        outcome = warm.train(folder, kind=kind)
        assert outcome.codes == [0], outcome.log
        found[kind] = weights_of(folder, kind)
    return found
