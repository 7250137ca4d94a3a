"""Tiny trainings with faults: a small LLaVA, a few pictures, about a second for a run of eight steps."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from llava.images import load_image_processor
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.tokenizer import load_tokenizer
from llava.train.saving import CheckpointWriter
from tests.faults.warm_process import WarmProcess, environments_of_ranks
from tests.tiny import SPECIAL_IDS, tiny_text, tiny_vision

ROOT = Path(__file__).resolve().parents[2]
MINI_BASE = ROOT / "playground" / "mini_world" / "base"
SIDE = 8
NUM_PICTURES, PER_PICTURE = 5, 4
KINDS = {
    "full": (),
    "lora": ("--lora_enable", "True", "--lora_r", "2", "--lora_dropout", "0.1", "--mm_projector_lr", "1e-3"),
    "projector": ("--tune_mm_mlp_adapter", "True"),
}
WEIGHTS = {"full": "model.safetensors", "lora": "adapter_model.safetensors", "projector": "mm_projector.bin"}
KILLED = -9
SECONDS, RANKS_SECONDS = 120, 400
DROPOUT = 0.1


@dataclass
class Outcome:
    """How a run ended: its exit status (negative: a signal) and what it said."""

    status: int
    log: str

    def ended_well(self) -> "Outcome":
        """Itself, if the run came to its end."""
        assert self.status == 0, self.log[-3000:]
        return self

    def was_killed(self) -> "Outcome":
        """Itself, if the fault came."""
        assert self.status == KILLED, f"status {self.status}\n{self.log[-3000:]}"
        return self

    def was_refused(self) -> str:
        """The message of a run that was refused, without a traceback."""
        assert self.status == 2, f"status {self.status}\n{self.log[-3000:]}"
        assert "Traceback" not in self.log, self.log[-3000:]
        return f"\n{self.log}".rpartition("\nerror: ")[2]


@dataclass
class Trainings:
    """Runs trainings one after the other in forks of one warm process, below `folder`."""

    folder: Path
    process: WarmProcess
    known: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    count: int = 0

    def flags(self, output_dir: Path, kind: str, *more: str) -> list[str]:
        """A run of eight steps over two epochs, with dropout and a schedule, saved every second step."""
        values = {
            "model_name_or_path": self.folder / "base",
            "data_path": self.folder / "train.json",
            "image_folder": self.folder / "images",
            "output_dir": output_dir,
            "per_device_train_batch_size": 5,
            "max_steps": 8,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 2,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine",
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        own = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
        return [*own, *KINDS[kind], *more]

    def start(self, output_dir: Path, kind: str, *more: str, **faults: object) -> tuple[int, Path]:
        """Begin a run: its process id and log."""
        self.count += 1
        log = self.folder / f"{self.count}.log"
        environment = faults.pop("environment", {})
        flags = self.flags(output_dir, kind, *more)
        return self.process.start(flags, log, environment=environment, faults=faults), log

    def run_ranks(self, output_dir: Path, kind: str, *more: str, **faults: object) -> list[Outcome]:
        """A run of two ranks; faults are lists with one entry for each of them, None for no such fault."""
        started = []
        for rank, environment in enumerate(environments_of_ranks(2)):
            own = {name: values[rank] for name, values in faults.items() if values[rank] is not None}
            started.append(self.start(output_dir, kind, *more, environment=environment, **own))
        return [self.end_of(*entry, seconds=RANKS_SECONDS) for entry in started]

    def run(self, output_dir: Path, kind: str, *more: str, **faults: object) -> Outcome:
        """A run from its beginning to its end."""
        return self.end_of(*self.start(output_dir, kind, *more, **faults))

    def end_of(self, pid: int, log: Path, *, seconds: float = SECONDS) -> Outcome:
        """Wait for a run that was started; it is killed when it takes longer."""
        (ended,) = self.process.wait([pid], seconds)
        return Outcome(ended.status, log.read_text(encoding="utf-8", errors="replace"))

    def place(self, name: str) -> Path:
        """A fresh output folder."""
        folder = self.folder / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def undisturbed(self, kind: str, *more: str) -> dict[str, str]:
        """What the same command gives when nothing happens: `sums` of it. Each is run once."""
        key = (kind, *more)
        if key not in self.known:
            folder = self.place("undisturbed")
            self.run(folder, kind, *more).ended_well()
            self.known[key] = sums(folder, kind)
        return self.known[key]


def sums(output_dir: Path, kind: str) -> dict[str, str]:
    """SHA-256 of the final weights, and of the last checkpoint's optimiser, schedule and random states."""
    found = {"weights": hash_of_tensors(output_dir / WEIGHTS[kind])}
    newest = max(
        output_dir.glob("checkpoint-*"), key=lambda entry: int(entry.name.split("-")[1]), default=None
    )
    if newest is not None:
        found["step"] = newest.name
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            found[name] = hash_of_values(torch.load(newest / name, weights_only=False))
    return found


def hash_of_tensors(file: Path) -> str:
    """SHA-256 over all tensors of a weight file."""
    return hash_of_values(
        load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    )


def hash_of_values(values: object) -> str:
    """SHA-256 over nested values and the bytes of their tensors."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, dict):
            for key in value:
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add(values)
    return digest.hexdigest()


def build(folder: Path) -> None:
    """The base model, pictures and conversations."""
    tokenizer, processor = load_tokenizer(MINI_BASE), load_image_processor(MINI_BASE)
    processor.size, processor.crop_size = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    text = tiny_text(
        vocab_size=len(tokenizer), tie_word_embeddings=False, attention_dropout=DROPOUT, **SPECIAL_IDS
    )
    torch.manual_seed(0)
    config = LlavaConfig(text_config=text, vision_config=tiny_vision())
    model = LlavaForCausalLM._from_config(config, dtype=torch.float32)
    CheckpointWriter("full", tokenizer, processor).write(model, folder / "base")
    (folder / "images").mkdir()
    rows = []
    for number in range(NUM_PICTURES):
        name = f"{number}.png"
        Image.new("RGB", (SIDE, SIDE), (number * 40, 100, 255 - number * 30)).save(folder / "images" / name)
        rows += [
            row_of(f"{number}_{k}", name, f"<image>\nWhat is {k}?", f"red {number}")
            for k in range(PER_PICTURE)
        ]
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")


def row_of(name: str, image: str, question: str, answer: str) -> dict[str, object]:
    """A row of the conversation file."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


@contextmanager
def warm_trainings(folder: Path) -> Iterator[Trainings]:
    """Trainings below a folder, until the block ends."""
    build(folder)
    process = WarmProcess(ROOT)
    try:
        yield Trainings(folder, process)
    finally:
        process.close()
