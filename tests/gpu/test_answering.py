"""On a GPU: the engine's answers are those of a CPU in fp32, a full card is survived, half precision runs."""

import pytest
import torch

from llava.eval.batch_size import limit_of
from llava.eval.drawing import Decoding
from tests.unit.eval.asking import ask

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DECODINGS = [Decoding(max_new_tokens=10), Decoding(temperature=0.9, top_p=0.8, max_new_tokens=10)]


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("decoding", DECODINGS)
def test_answers_are_those_of_the_cpu(decoding: Decoding, tiled: bool) -> None:
    asked = ask(0, tiled=tiled)
    wanted = asked.alone(decoding)
    asked.model.cuda()
    for batch_size in (1, 5, 50):
        assert asked.answers(decoding, batch_size) == wanted


def test_a_card_that_is_full_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """Long answers on a card of which little may be used; the first batch does not fit."""
    asked = ask(1, count=2000)
    decoding = Decoding(max_new_tokens=60)
    wanted = asked.answers(decoding, 100)
    asked.model.cuda()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (24 << 20)) / total)
    try:
        assert asked.answers(decoding, 2000) == wanted
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory was full; going on with batches of" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_auto(dtype: torch.dtype) -> None:
    asked = ask(2)
    asked.model.to("cuda", dtype)
    assert limit_of("auto", asked.model).rows > 16
    engine = asked.engine(DECODINGS[0], "auto")  # type: ignore[arg-type]
    found = dict(engine.answer(asked.questions))
    assert sorted(found) == list(range(len(asked.questions)))
    assert all(found.values())
