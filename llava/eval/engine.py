"""Questions to answers: a picture is opened ahead, encoded and prefilled once, its questions are decoded
together from its cache, and a question that is answered leaves the batch.

The answers are those of one question at a time, token for token (fp32): greedy, sampled or by beams.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from llava.errors import UsageError
from llava.eval.batch_size import BatchSize, limit_of
from llava.eval.batches import Asked, Limit, Share, align_questions, pad_prefixes, plan_shares
from llava.eval.decode_loop import Prompt, decode, generate
from llava.eval.drawing import Decoding
from llava.eval.pictures_ahead import PicturesAhead
from llava.eval.questions import Question
from llava.eval.row_cache import empty_cache, spread_rows
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded, Picture
from llava.tokenizer import decode_text

logger = logging.getLogger(__name__)

WINDOW, WINDOW_BATCHES = 256, 4
"""Questions are put together by picture and length within so many of the file, or so many batches if that is
more; no more answers wait for an earlier one before they reach the file.
"""


@dataclass(frozen=True)
class AnswerEngine:
    """`encode` turns a question into ids with an open answer, `load_picture` opens a picture's path.

    `seed` is that of sampled answers; batches hold at most `batch_size` questions.
    """

    model: LlavaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    encode: Callable[[Question], Encoded]
    load_picture: Callable[[str], Picture]
    decoding: Decoding
    seed: int = 0
    batch_size: BatchSize = "auto"

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """(index, answer) of every question, not in order.

        What does not fit into the device's memory is tried in halves; `UsageError` when one question does
        not. An error of a picture is raised as it is.
        """
        with PicturesAhead(self.load_picture) as pictures:
            run = Run(self, questions, pictures, limit_of(self.batch_size, self.model))
            yield from run.answers()

    @torch.inference_mode()
    def prefill(self, firsts: Sequence[Asked], pictures: Sequence[Picture]) -> DynamicCache:
        """Key-value cache of the questions' prefixes, a row for each; the pictures pass through the tower
        together.
        """
        device = self.model.lm_head.weight.device
        ids, mask = pad_prefixes(firsts, padding=self.tokenizer.pad_token_id or 0)
        cache = DynamicCache(config=self.model.config.text_config)
        self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            image_features=features_of(self.model, pictures),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache

    @torch.inference_mode()
    def answer_batch(
        self,
        batch: Sequence[Asked],
        questions: Sequence[Question],
        prefixes: DynamicCache | None,
        rows: list[int],
    ) -> list[str]:
        """The texts of a batch whose questions go on from those rows of the prefixes' cache."""
        decoding = self.decoding
        device = self.model.lm_head.weight.device
        width = 0 if prefixes is None else prefixes.get_seq_length()
        ids, mask = align_questions(batch, prefix_width=width, padding=self.tokenizer.pad_token_id or 0)
        room = ids.shape[1] + decoding.max_new_tokens
        beams = decoding.num_beams > 1
        if prefixes is None:
            text = self.model.config.text_config
            cache = DynamicCache(config=text) if beams else empty_cache(text, room=room)
        else:
            places = torch.tensor(rows, device=device).repeat_interleave(decoding.num_beams)
            cache = spread_rows(prefixes, places, room=None if beams else room)
        prompt = Prompt(ids.to(device), mask.to(device), cache)
        if beams:
            tokens = generate(self.model, prompt, decoding.as_config(self.tokenizer))
        else:
            tokens = decode(
                self.model,
                prompt,
                decoding.chooser(questions, seed=self.seed),
                end=self.tokenizer.eos_token_id,
                max_new_tokens=decoding.max_new_tokens,
            )
        return [decode_text(self.tokenizer, row).strip() for row in tokens]


@dataclass
class Run:
    """One pass over a file's questions; `limit` shrinks when the device is full."""

    engine: AnswerEngine
    questions: Sequence[Question]
    pictures: PicturesAhead[Picture]
    limit: Limit

    def answers(self) -> Iterator[tuple[int, str]]:
        """(index, answer) of every question, window by window."""
        size = max(WINDOW, WINDOW_BATCHES * self.limit.rows)
        window = self._window(0, size)
        while window:
            following = self._window(window[-1].index + 1, size)
            yield from self._answer_window(window, following)
            window = following

    def _window(self, start: int, size: int) -> list[Asked]:
        """Ids of the next questions."""
        indices = range(start, min(start + size, len(self.questions)))
        chosen = [(index, self.questions[index]) for index in indices]
        return [Asked(index, one.image_path, self.engine.encode(one)) for index, one in chosen]

    def _answer_window(
        self, window: Sequence[Asked], following: Sequence[Asked]
    ) -> Iterator[tuple[int, str]]:
        """Answers of a window, with smaller batches as often as the device was full."""
        todo = {one.index: one for one in window}
        while todo:
            for index, text in self._answer_until_full(list(todo.values()), following):
                del todo[index]
                yield index, text
            if todo:
                self._shrink()

    def _answer_until_full(
        self, asked: Sequence[Asked], following: Sequence[Asked]
    ) -> Iterator[tuple[int, str]]:
        """Answers until all are given or the device's memory is full."""
        plan = self._plan(asked)
        coming = [*plan, *self._plan(following)]
        self.pictures.expect(picture_of(first) for share in coming for first in share.firsts)
        try:
            for share in plan:
                yield from self._answer_share(share)
        except torch.OutOfMemoryError:
            return  # here the tensors of the batch are let go

    def _answer_share(self, share: Share) -> Iterator[tuple[int, str]]:
        """Prefill the pictures of a share, and answer its batches."""
        prefixes = None
        if share.firsts:
            pictures = [self.pictures.take(picture_of(first)) for first in share.firsts]
            prefixes = self.engine.prefill(share.firsts, pictures)
        places = {(first.picture, tuple(first.prefix)): row for row, first in enumerate(share.firsts)}
        for batch in share.batches:
            rows = [places[one.picture, tuple(one.prefix)] for one in batch] if places else []
            texts = self.engine.answer_batch(
                batch, [self.questions[one.index] for one in batch], prefixes, rows
            )
            yield from zip((one.index for one in batch), texts, strict=True)

    def _plan(self, asked: Sequence[Asked]) -> list[Share]:
        """Shares of some questions; each alone where padding would fill a sliding window of attention."""
        new = self.engine.decoding.max_new_tokens
        limit = self.limit
        span = getattr(self.engine.model.config.text_config, "sliding_window", None)
        if span is not None and asked:
            longest = max(one.encoded.prefix_length for one in asked) + max(len(one.rest) for one in asked)
            limit = Limit(1) if longest + new > span else limit
        return plan_shares(asked, limit, max_new_tokens=new)

    def _shrink(self) -> None:
        """Halve the batches; `UsageError` when they hold one question each already."""
        if self.limit.rows == 1:
            raise UsageError(
                "the device's memory does not hold a single question; use --dtype bfloat16, --load-4bit, a "
                "smaller --max_new_tokens or a device with more memory. The answers so far are kept."
            )
        self.limit = self.limit.halved()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("the device's memory was full; going on with batches of %d.", self.limit.rows)


def picture_of(asked: Asked) -> str:
    """The name of the picture that a prefix holds."""
    assert asked.picture is not None, "a prefix is there for a picture's sake"
    return asked.picture


def features_of(model: LlavaForCausalLM, pictures: Sequence[Picture]) -> Sequence[Tensor]:
    """The pictures' features, all in one pass of the vision tower."""
    pixels = [picture.pixels.to(model.device, model.dtype) for picture in pictures]
    whole = all(one.dim() == 3 for one in pixels)
    sizes = [picture.size for picture in pictures]
    return model.picture_features(torch.stack(pixels) if whole else pixels, sizes)
