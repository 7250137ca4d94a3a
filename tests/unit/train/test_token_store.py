"""Encoded samples that are kept equal those encoded anew, whoever wrote them and whatever was lost."""

import logging
import multiprocessing
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import training_template
from llava.processing import Encoded
from llava.train import conversations, samples
from llava.train.conversations import ConversationDataset, Encoding, open_store
from llava.train.recipe import store_of
from llava.train.sample_index import Sample
from llava.train.samples import read_samples
from llava.train.token_store import TokenStore
from tests.parity.golden import DATA, golden_tokenizer
from tests.parity.training import run_training, working_folder

PATCHES = 16


def store_in(folder: Path, count: int, *, num_tokens: int = 1000) -> TokenStore:
    """A store of samples with pictures of `PATCHES` tokens."""
    return TokenStore(folder, count, num_patches=PATCHES, num_tokens=num_tokens)


def random_encoded(rng: random.Random, num_tokens: int) -> Encoded:
    """Ids and labels as encoding makes them, with up to three pictures that may touch."""
    ids, labels, prefix = [], [], 0
    num_images = rng.randrange(4)
    for number in range(num_images + 1):
        for _ in range(rng.choice([0, 1, 7, 400])):
            ids.append(rng.choice([0, 1, num_tokens - 1, rng.randrange(num_tokens)]))
            labels.append(rng.choice([IGNORE_INDEX, ids[-1]]))
        if number < num_images:
            ids += [IMAGE_TOKEN_INDEX] * PATCHES
            labels += [IGNORE_INDEX] * PATCHES
            prefix = len(ids)
    return Encoded(ids, labels, prefix, num_images)


@pytest.mark.parametrize("num_tokens", [1000, 32_767, 32_768, 200_000])
def test_what_is_kept_comes_back(num_tokens: int, tmp_path: Path) -> None:
    rng = random.Random(num_tokens)
    given = [random_encoded(rng, num_tokens) for _ in range(60)]
    store = store_in(tmp_path, 60, num_tokens=num_tokens)
    for number in rng.sample(range(60), 60):
        assert store.get(number) is None
        store.put(number, given[number])
        assert store.get(number) == given[number]
    again = store_in(tmp_path, 60, num_tokens=num_tokens)
    assert [again.get(number) for number in range(60)] == given
    assert [pickle.loads(pickle.dumps(store)).get(number) for number in range(60)] == given
    assert any(encoded.num_images > 1 for encoded in given)


def golden_dataset(count: int, length: int = 300) -> ConversationDataset:
    """Samples with and without pictures, some of them longer than `length`."""
    rng = random.Random(0)
    given = []
    for number in range(count):
        texts = [rng.choice(["Why is it so? ", "ü€ ", "red "]) * rng.choice([1, 3, 90]) for _ in range(4)]
        images = ("a.png",) if number % 3 else ()
        texts[0] = "<image>\n" * bool(images) + texts[0]
        given.append(Sample(str(number), number, images, tuple(zip(samples.ROLES * 2, texts, strict=True))))
    encoding = Encoding(training_template("v1"), golden_tokenizer("nonlegacy"), PATCHES, length)
    return ConversationDataset(given, encoding, open_store(given, encoding))


def test_a_dataset_gives_the_same_examples_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = golden_dataset(40)
    plain = ConversationDataset(dataset.samples, dataset.encoding)
    wanted = [plain[number] for number in range(40)]
    assert [dataset[number] for number in range(40)] == wanted
    monkeypatch.setattr(conversations, "encode_sample", lambda *_, **__: pytest.fail("encoded twice"))
    assert [dataset[number] for number in range(40)] == wanted
    assert dataset[None] is None
    lengths = [len(example.encoded.input_ids) for example in wanted if example is not None]
    assert max(lengths) == 300 > min(lengths), "some must be cut, some not"


def write_some(dataset: ConversationDataset, numbers: list[int]) -> list[object]:
    """What a worker does; it may not touch the part of the process that it was forked from."""
    return [dataset[number] for number in numbers]


def test_several_processes_write_and_read_at_once() -> None:
    dataset = golden_dataset(30)
    wanted = [ConversationDataset(dataset.samples, dataset.encoding)[number] for number in range(30)]
    assert dataset[29] == wanted[29], "the parent has written, so that its part is there"
    rng = random.Random(1)
    orders = [rng.sample(range(30), 30) for _ in range(4)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(write_some, [(dataset, order) for order in orders], chunksize=1)
    assert found == [[wanted[number] for number in order] for order in orders]
    assert dataset.store is not None
    assert [dataset.store.get(number) for number in range(30)] == [one.encoded for one in wanted if one]


def test_a_loader_with_workers_fills_the_store() -> None:
    dataset = golden_dataset(24)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=list)
    first = [example for batch in loader for example in batch]
    assert dataset.store is not None
    assert [dataset.store.get(number) for number in range(24)] == [example.encoded for example in first]


def broken(content: bytes) -> Iterator[bytes]:
    """What a crash, or a disk, can make of a part."""
    yield b""
    yield content[: len(content) // 2]
    yield bytes(len(content))
    yield bytes([content[0] ^ 1]) + content[1:]
    yield content[:30] + bytes([content[30] ^ 1]) + content[31:]
    yield content[:4] + b"\xff" * 4 + content[8:]
    yield content[:8] + b"\1" + content[9:]


def test_broken_records_are_not_trusted(tmp_path: Path) -> None:
    rng = random.Random(0)
    given = random_encoded(rng, 1000)
    while not given.input_ids:
        given = random_encoded(rng, 1000)
    store_in(tmp_path, 3).put(0, given)
    part = tmp_path / "part-0"
    content = part.read_bytes()
    for number, damaged in enumerate(broken(content)):
        part.write_bytes(damaged)
        store = store_in(tmp_path, 3)
        assert store.get(0) is None, number
    part.unlink()
    store = store_in(tmp_path, 3)
    assert store.get(0) is None
    store.put(0, given)
    assert store.get(0) == given


def test_slots_of_another_size_are_no_danger(tmp_path: Path) -> None:
    (tmp_path / "slots").write_bytes(os.urandom(37))
    store = store_in(tmp_path, 10)
    assert [store.get(number) for number in range(10)] == [None] * 10


def test_a_full_disk_ends_the_keeping_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = golden_dataset(6)
    wanted = [ConversationDataset(dataset.samples, dataset.encoding)[number] for number in range(6)]
    monkeypatch.setattr(os, "write", lambda *_: 3)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [dataset[number] for number in range(6)] == wanted
    (message,) = [record.getMessage() for record in caplog.records]
    assert "no longer kept" in message
    monkeypatch.setattr(conversations, "temporary_folder", lambda: Path("/dev/null/tokens"))
    assert open_store(dataset.samples, dataset.encoding) is None
    assert "encoded anew in every epoch" in caplog.text


def kept_samples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, Path]:
    """Samples with a kept index, and its folder."""
    monkeypatch.setattr(samples, "KEPT_FROM_BYTES", 0)
    file = folder / "rows.json"
    file.write_bytes((DATA / "data" / "traj8.json").read_bytes())
    return read_samples(file, DATA), folder / ".llava_cache"


def test_a_kept_store_is_of_one_encoding_and_goes_with_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, cache = kept_samples(tmp_path, monkeypatch)
    tokenizer = golden_tokenizer("nonlegacy")
    settings = [
        (training_template("v1"), tokenizer, 16, 2048, False),
        (training_template("plain"), tokenizer, 16, 2048, False),
        (training_template("v1"), golden_tokenizer("legacy"), 16, 2048, False),
        (training_template("v1"), tokenizer, 4, 2048, False),
        (training_template("v1"), tokenizer, 16, 512, False),
        (training_template("v1"), tokenizer, 16, 2048, True),
    ]
    folders = set()
    for setting in settings:
        store = open_store(index, Encoding(*setting))  # type: ignore[arg-type]
        assert store is not None
        folders.add(store.folder)
        again = open_store(index, Encoding(*setting))  # type: ignore[arg-type]
        assert again is not None
        assert again.folder == store.folder
    assert len(folders) == len(settings)
    assert all(folder.parent == cache for folder in folders)
    with (tmp_path / "rows.json").open("a") as more:
        more.write("\n")
    read_samples(tmp_path / "rows.json", DATA)
    assert not any(folder.exists() for folder in folders), "they were of the file as it was"


class Args:
    """What decides how often samples are drawn."""

    train_batch_size, gradient_accumulation_steps, world_size = 4, 1, 1

    def __init__(self, epochs: float, max_steps: int = -1) -> None:
        self.num_train_epochs, self.max_steps = epochs, max_steps


@pytest.mark.parametrize(
    ("args", "wanted"), [(Args(1), False), (Args(0.5), False), (Args(1.2), True), (Args(1, 4), True)]
)
def test_it_is_used_only_where_samples_are_drawn_again(args: Args, wanted: bool) -> None:
    dataset = golden_dataset(12)
    store = store_of(dataset.samples, dataset.encoding, args)  # type: ignore[arg-type]
    assert (store is not None) == wanted


def test_training_with_and_without_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.chdir(working_folder(models))
    argv = [
        *("--model_name_or_path", "llava-v1.5-tiny", "--data_path", "data/traj8.json"),
        *("--image_folder", "data", "--per_device_train_batch_size", "4", "--num_train_epochs", "3"),
        *("--logging_steps", "1", "--learning_rate", "1e-3", "--save_strategy", "no"),
    ]
    kept = run_training(argv, tmp_path / "kept", monkeypatch)
    monkeypatch.setattr("llava.train.recipe.open_store", lambda *_: None)
    anew = run_training([*argv, "--dataloader_num_workers", "0"], tmp_path / "anew", monkeypatch)
    assert len(kept.losses) == 6
    assert kept.losses == anew.losses
    assert all(torch.equal(kept.weights[key], anew.weights[key]) for key in anew.weights)
