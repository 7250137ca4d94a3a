"""The engine: batches, shared pictures, rows that leave and a full device change no answer, and each picture
passes through the tower once.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig

from llava.errors import UsageError
from llava.eval import batch_size as batch_size_module
from llava.eval import engine as engine_module
from llava.eval.decode_loop import Rows
from llava.eval.drawing import Decoding
from llava.eval.engine import FULL_CPU
from llava.eval.outcomes import Failure
from llava.eval.questions import Question
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded, Picture
from tests.tiny import tiny_config, tiny_text
from tests.unit.eval.asking import Asked, ask

GREEDY = Decoding(max_new_tokens=10)
SAMPLED = Decoding(temperature=0.9, top_p=0.8, max_new_tokens=10)
BEAMS = Decoding(num_beams=3, max_new_tokens=6)
SEEDS = range(6)


def lengths(answers: list[str]) -> set[int]:
    """How many tokens the answers have."""
    return {len(answer.split()) for answer in answers}


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
@pytest.mark.parametrize("seed", SEEDS)
def test_batches_change_no_answer(seed: int, decoding: Decoding, tiled: bool) -> None:
    """Against `generate` with one question at a time, token for token in fp32."""
    asked = ask(seed, tiled=tiled)
    wanted = asked.alone(decoding)
    assert len(lengths(wanted)) > 2, "rows must leave at different steps"
    assert len(set(wanted)) > 5, "the answers must differ"
    for batch_size in (1, 3, 5, 50):
        assert asked.answers(decoding, batch_size) == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_beams_are_those_of_one_question(seed: int) -> None:
    asked = ask(seed, count=8)
    wanted = asked.alone(BEAMS)
    for batch_size in (1, 8):
        found = asked.answers(BEAMS, batch_size)
        assert [without_padding(text) for text in found] == wanted


def without_padding(text: str) -> str:
    """Tokens up to the end; `generate` pads rows of a batch behind it."""
    tokens = text.split()
    return " ".join(tokens[: tokens.index("2") + 1] if "2" in tokens else tokens)


@pytest.mark.parametrize("batch_size", [2, 50])
def test_each_picture_is_opened_and_encoded_once(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(0, count=30)
    encoded: list[int] = []
    encode = LlavaForCausalLM.encode_images

    def count(model: LlavaForCausalLM, pixel_values: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixel_values))
        return encode(model, pixel_values)

    monkeypatch.setattr(LlavaForCausalLM, "encode_images", count)
    asked.answers(GREEDY, batch_size)
    pictures = sorted({one.image_path for one in asked.questions if one.image_path})
    assert sorted(asked.opened) == pictures
    assert sum(encoded) == len(pictures) == 4
    assert max(encoded) == min(batch_size, 4), "in batches"


def test_a_sampled_answer_depends_on_its_question_and_the_seed_alone() -> None:
    asked = ask(1)
    wanted = dict(zip((one.question_id for one in asked.questions), asked.answers(SAMPLED, 4), strict=True))
    random.Random(0).shuffle(asked.questions)
    del asked.questions[::3]
    torch.manual_seed(99)
    found = asked.answers(SAMPLED, 50)
    assert found == [wanted[one.question_id] for one in asked.questions]
    other = dict(asked.engine(SAMPLED, 50, seed=1).answer(asked.questions))
    assert [other[index] for index in range(len(found))] != found


def test_decoded_rows_become_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interesting case occurs: no step decodes a row that has ended."""
    asked = ask(2, count=20)
    rows = 0
    forward = LlavaForCausalLM.forward

    def count(model: LlavaForCausalLM, *args: object, **kwargs: object) -> object:
        nonlocal rows
        ids = kwargs.get("input_ids")
        rows += len(ids) if isinstance(ids, torch.Tensor) and ids.shape[1] == 1 else 0
        return forward(model, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LlavaForCausalLM, "forward", count)
    answers = asked.answers(GREEDY, 50)
    assert rows == sum(len(answer.split()) - 1 for answer in answers)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_words_before_pictures_pass_once(seed: int, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(seed, tiled=tiled)
    monkeypatch.setattr(engine_module, "LEAST_SAVED", 1)
    spread: list[int] = []
    spread_rows = engine_module.spread_rows

    def watched(cache: object, rows: torch.Tensor, *, room: int | None) -> object:
        spread.append(len(rows) if room is None else 0)
        return spread_rows(cache, rows, room=room)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "spread_rows", watched)
    assert asked.answers(GREEDY, 50) == asked.alone(GREEDY)
    assert max(spread) > 1, "several pictures begin with the same words"


def test_long_answers_of_several_batches_go_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interesting case occurs in the test above: rows of other lengths are joined, more than once."""
    widths: list[tuple[int, int]] = []
    join = engine_module.join

    def watched(first: Rows, second: Rows, *, room: int) -> Rows:
        widths.append((first.mask.shape[1], second.mask.shape[1]))
        return join(first, second, room=room)

    monkeypatch.setattr(engine_module, "join", watched)
    for seed in SEEDS:
        ask(seed).answers(GREEDY, 5)
    assert len(widths) > 3
    assert any(first > second for first, second in widths)
    assert any(first < second for first, second in widths)


Decode = Callable[..., list]


def full_above(most: int, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds `most` questions: more of them are an out-of-memory error, in mid-batch."""
    decode: Decode = engine_module.decode

    def limited(model: object, rows: Rows, choose: object, **kwargs: object) -> list:
        count = len(rows.answers)
        seen.append(count)
        if count > most:
            decode(model, rows, choose, **{**kwargs, "max_new_tokens": 2})
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, rows, choose, **kwargs)

    monkeypatch.setattr(engine_module, "decode", limited)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
@pytest.mark.parametrize("most", [1, 3])
def test_a_full_device_halves_the_batch_and_loses_nothing(
    most: int, decoding: Decoding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = ask(3, count=24)
    wanted = asked.alone(decoding)
    seen: list[int] = []
    full_above(most, seen, monkeypatch)
    found = list(asked.engine(decoding, 1000).answer(asked.questions))
    assert sorted(index for index, _ in found) == list(range(24)), "each once"
    assert sum(rows > most for rows in seen) <= 5, "half of what was tried, not of 1000"
    assert [text for _, text in sorted(found)] == wanted
    assert max(seen) > most, "the device was full"
    assert "memory was full; going on with batches of" in caplog.text


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("CUDA"), RuntimeError(f"{FULL_CPU}: you tried")])
def test_a_question_that_does_not_fit_is_told_and_the_others_go_on(
    full: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is full whenever question 5 is in the batch; halving goes down to it alone, then up again."""
    asked = ask(3, count=24)
    wanted = asked.alone(GREEDY)
    decode: Decode = engine_module.decode
    sizes: list[int] = []

    def limited(model: object, rows: Rows, choose: object, **kwargs: object) -> list:
        sizes.append(len(rows.answers))
        if any(one.index == 5 for one in rows.answers):
            raise full
        return decode(model, rows, choose, **kwargs)

    monkeypatch.setattr(engine_module, "decode", limited)
    found = list(asked.engine(GREEDY, 8).answer(asked.questions))
    assert sorted(index for index, _ in found) == list(range(24)), "each once"
    failure = dict(found)[5]
    assert isinstance(failure, Failure)
    assert "does not hold this question, even alone; use --dtype bfloat16" in failure.reason
    assert [text for index, text in sorted(found) if index != 5] == wanted[:5] + wanted[6:]
    assert 1 in sizes


def test_another_error_of_the_model_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(3, count=4)

    def broken(*args: object, **kwargs: object) -> list:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(engine_module, "decode", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(asked.engine(GREEDY, 4).answer(asked.questions))


def test_what_cannot_be_encoded_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(4, count=9)
    wanted = asked.alone(GREEDY)
    monkeypatch.setattr(engine_module, "WINDOW", 2)
    monkeypatch.setattr(engine_module, "WINDOW_BATCHES", 1)

    def encode(question: Question) -> Encoded:
        if question.question_id in ("q2", "q3", "q8"):
            raise UsageError(f"no size of {question.question_id}")
        return asked.encoded[question.question_id]

    engine = replace(asked.engine(GREEDY, 2), encode=encode)
    found = dict(engine.answer(asked.questions))
    assert [found[index] for index in (0, 1, 4, 5, 6, 7)] == [wanted[index] for index in (0, 1, 4, 5, 6, 7)]
    assert [found[index] for index in (2, 3, 8)] == [Failure(f"no size of q{index}") for index in (2, 3, 8)]


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_picture_that_fails_leaves_the_others(batch_size: int) -> None:
    asked = ask(4)
    wanted = asked.alone(GREEDY)

    def load(path: str) -> Picture:
        if path == "b":
            raise UsageError("the picture b is damaged: cut off; replace the file.")
        return Asked.load(asked, path)

    asked.load = load  # type: ignore[method-assign]
    assert {one.image_path for one in asked.questions} > {"b"}
    found = dict(asked.engine(GREEDY, batch_size).answer(asked.questions))
    told = Failure("the picture b is damaged: cut off; replace the file.")
    pairs = zip(asked.questions, wanted, strict=True)
    assert [found[index] for index in range(len(found))] == [
        told if question.image_path == "b" else text for question, text in pairs
    ]


def test_a_sliding_window_is_not_filled_with_padding() -> None:
    """Such a model sees so many places back, padding counted."""
    asked = ask(5, count=12)
    text = tiny_text(MistralConfig, vocab_size=50, tie_word_embeddings=False, sliding_window=9, head_dim=8,
                     bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip
    torch.manual_seed(0)
    config = tiny_config()
    config.text_config = text
    asked.model = LlavaForCausalLM._from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in asked.model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    assert asked.answers(GREEDY, 50) == asked.alone(GREEDY)


def test_windows_of_the_file_hold_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(6, count=23)
    wanted = asked.alone(GREEDY)
    monkeypatch.setattr(engine_module, "WINDOW", 5)
    monkeypatch.setattr(engine_module, "WINDOW_BATCHES", 1)
    found = list(asked.engine(GREEDY, 2).answer(asked.questions))
    assert [text for _, text in sorted(found)] == wanted
    order = [index // 5 for index, _ in found]
    assert order == sorted(order), "a window is answered before the next"
    assert list(asked.engine(GREEDY, 2).answer([])) == []


def test_questions_without_pictures_are_answered() -> None:
    asked = ask(7, count=20)
    asked.questions = [one for one in asked.questions if one.image_path is None]
    assert len(asked.questions) > 1
    assert asked.answers(GREEDY, 50) == asked.alone(GREEDY)
    assert asked.opened == []


def test_free_memory_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "meminfo"
    monkeypatch.setattr(batch_size_module, "MEMORY_FILE", file)
    assert batch_size_module.free_memory(torch.device("cpu")) == batch_size_module.CPU_MEMORY
    file.write_text("MemTotal:  900 kB\nMemFree:  20 kB\nMemAvailable:  300 kB\n", encoding="utf-8")
    assert batch_size_module.free_memory(torch.device("cpu")) == 300 * 1024


def test_auto_finds_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as half of the free memory holds, and the same answers."""
    asked = ask(8)
    seen: list[int] = []
    full_above(1000, seen, monkeypatch)
    wanted = asked.alone(GREEDY)

    def answers_with(memory: int) -> int:
        monkeypatch.setattr("llava.eval.batch_size.free_memory", lambda device: memory)
        seen.clear()
        found = dict(asked.engine(GREEDY, "auto").answer(asked.questions))  # type: ignore[arg-type]
        assert [found[index] for index in range(len(wanted))] == wanted
        return max(seen)

    per_token = 4 * (2 * 2 * 2 * 8 + 8 * 32 + 3 * 48)  # fp32: keys and values of two layers, activations
    row = 2 * 6 + 9 + GREEDY.max_new_tokens
    assert answers_with(1) == 1
    assert 2 <= answers_with(2 * 3 * row * per_token) <= 4
    assert answers_with(1 << 40) >= 10
