"""Questions to answers: a picture is opened ahead, encoded and prefilled once, its questions are decoded
together from its cache, and a question that is answered leaves the batch.

The answers are those of one question at a time, token for token (fp32): greedy, sampled or by beams.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from llava.errors import UsageError
from llava.eval.batch_size import BatchSize, limit_of
from llava.eval.batches import (
    Asked,
    Limit,
    Share,
    align_questions,
    common_words,
    pad_prefixes,
    plan_shares,
    without_pictures,
)
from llava.eval.decode_loop import Answer, Rows, compact, decode, generate, join, start_rows
from llava.eval.drawing import Decoding
from llava.eval.outcomes import Failure, Outcome
from llava.eval.pictures_ahead import PicturesAhead
from llava.eval.questions import Question
from llava.eval.row_cache import can_join, empty_cache, spread_rows
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded, Picture
from llava.tokenizer import decode_text

logger = logging.getLogger(__name__)

WINDOW, WINDOW_BATCHES = 256, 4
"""Questions are put together by picture and length within so many of the file, or so many batches if that is
more; no more answers wait for an earlier one before they reach the file.
"""
LEAST_SAVED = 128
"""Tokens that a pass of its own must save for the words before pictures to get one."""
FULL_CPU = "DefaultCPUAllocator: can't allocate memory"
"""Stands in torch's error when main memory is full."""
TOO_LARGE = (
    "the device's memory does not hold this question, even alone; use --dtype bfloat16, --load-4bit, a "
    "smaller --max_new_tokens or a device with more memory."
)
ROOM = 64
"""New tokens that a batch has memory for at first; where answers are longer it grows by as many."""


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

    def batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Outcome]]]:
        """(index, answer) of every question, not in order, as many as are there together.

        What does not fit into the device's memory is tried in halves. A question that does not fit alone, or
        whose picture cannot be used, has a `Failure` in place of its answer.
        """
        with PicturesAhead(self.load_picture) as pictures:
            limit = limit_of(self.batch_size, self.model)
            yield from Run(self, questions, pictures, limit, limit).answers()

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Outcome]]:
        """The same, one by one."""
        for batch in self.batches(questions):
            yield from batch

    @torch.inference_mode()
    def prefill(self, firsts: Sequence[Asked], pictures: Sequence[Picture]) -> DynamicCache:
        """Key-value cache of the questions' prefixes, a row for each; the pictures pass through the tower
        together, and words that stand before all of them through the language model once.
        """
        device = self.model.lm_head.weight.device
        ids, mask = (one.to(device) for one in pad_prefixes(firsts, padding=self.tokenizer.pad_token_id or 0))
        cache = DynamicCache(config=self.model.config.text_config)
        same = common_words([first.prefix for first in firsts])
        if same * (len(firsts) - 1) >= LEAST_SAVED:
            self.model(input_ids=ids[:1, :same], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = spread_rows(cache, torch.zeros(len(firsts), dtype=torch.long, device=device), room=None)
            ids = ids[:, same:]
        self.model(
            input_ids=ids,
            attention_mask=mask,
            image_features=features_of(self.model, pictures),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache

    @torch.inference_mode()
    def start(
        self, batch: Sequence[Asked], answers: list[Answer], prefixes: DynamicCache | None, places: list[int]
    ) -> Rows:
        """Questions as rows; each goes on from its place in the prefixes' cache."""
        text = self.model.config.text_config
        device = self.model.lm_head.weight.device
        beams = self.decoding.num_beams
        width = 0 if prefixes is None else prefixes.get_seq_length()
        ids, mask = align_questions(batch, prefix_width=width, padding=self.tokenizer.pad_token_id or 0)
        room = None if beams > 1 else ids.shape[1] + self.room
        if prefixes is not None:
            chosen = torch.tensor(places, device=device).repeat_interleave(beams)
            cache = spread_rows(prefixes, chosen, room=room)
        else:
            cache = DynamicCache(config=text) if room is None else empty_cache(text, room=room)
        return start_rows(answers, ids.to(device), mask.to(device), cache)

    @torch.inference_mode()
    def go_on(self, rows: Rows, *, leave: int = 0) -> list[tuple[int, str]]:
        """(index, text) of rows that are answered, until at most `leave` are left; beams leave none."""
        if self.decoding.num_beams > 1:
            done = generate(self.model, rows, self.decoding.as_config(self.tokenizer))
            rows.answers = []
        else:
            done = decode(
                self.model,
                rows,
                self.decoding.chooser(),
                end=self.tokenizer.eos_token_id,
                max_new_tokens=self.decoding.max_new_tokens,
                leave=leave,
            )
        return [(one.index, decode_text(self.tokenizer, one.tokens).strip()) for one in done]

    @torch.inference_mode()
    def join(self, left: Rows | None, rows: Rows) -> Rows:
        """What a batch has left, beside what others have, in memory of its own size."""
        return compact(rows, room=self.room) if left is None else join(left, rows, room=self.room)

    @property
    def room(self) -> int:
        """Tokens that a row's memory is enlarged by at a time."""
        return min(self.decoding.max_new_tokens, ROOM)


class Window(NamedTuple):
    """Questions that are put together by picture and length, and those that cannot be asked."""

    asked: list[Asked]
    failed: list[tuple[int, Outcome]]


@dataclass
class Run:
    """One pass over a file's questions; `limit` shrinks from `first_limit` when the device is full.

    `largest` is the largest batch that is planned now, `current` a question of the batch that is tried.
    """

    engine: AnswerEngine
    questions: Sequence[Question]
    pictures: PicturesAhead[Picture]
    limit: Limit
    first_limit: Limit
    largest: int = 0
    current: int = 0

    def answers(self) -> Iterator[list[tuple[int, Outcome]]]:
        """(index, answer) of every question, window by window."""
        size = max(WINDOW, WINDOW_BATCHES * self.limit.rows)
        starts = range(0, len(self.questions), size)
        following = self._window(0, size)
        for start in starts:
            window, following = following, self._window(start + size, size)
            if window.failed:
                yield window.failed
            yield from self._answer_window(window.asked, following.asked)

    def _window(self, start: int, size: int) -> Window:
        """Ids of the next questions."""
        window = Window([], [])
        for index in range(start, min(start + size, len(self.questions))):
            question = self.questions[index]
            try:
                window.asked.append(Asked(index, question.image_path, self.engine.encode(question)))
            except UsageError as error:
                window.failed.append((index, Failure(str(error))))
        return window

    def _answer_window(
        self, window: Sequence[Asked], following: Sequence[Asked]
    ) -> Iterator[list[tuple[int, Outcome]]]:
        """Answers of a window, with smaller batches as often as the device was full."""
        todo = {one.index: one for one in window}
        while todo:
            for batch in self._answer_until_full(list(todo.values()), following):
                for index, _ in batch:
                    del todo[index]
                yield batch
            if todo and self.largest == 1:
                del todo[self.current]
                yield [(self.current, Failure(TOO_LARGE))]
                self.limit = self.first_limit  # the others may be smaller
            elif todo:
                self._shrink()

    def _answer_until_full(
        self, asked: Sequence[Asked], following: Sequence[Asked]
    ) -> Iterator[list[tuple[int, Outcome]]]:
        """Answers until all are given or the memory is full."""
        plan = self._plan(asked)
        self.largest = max(len(batch) for share in plan for batch in share.batches)
        coming = [*plan, *self._plan(following)]
        self.pictures.expect(picture_of(first) for share in coming for first in share.firsts)
        try:
            left: Rows | None = None
            for share in plan:
                left = yield from self._answer_share(share, left)
            if left is not None:
                yield list(self.engine.go_on(left))
        except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
            return  # here the tensors of the batch are let go

    def _answer_share(
        self, share: Share, left: Rows | None
    ) -> Generator[list[tuple[int, Outcome]], None, Rows | None]:
        """Prefill the pictures of a share, and answer its batches; a few long answers are left for later.

        They go on together with those that earlier batches left, when they are as many as half a batch.
        """
        self.current = share.batches[0][0].index
        pictures, reasons = self._take_pictures(share.firsts)
        if reasons:
            asked = [one for batch in share.batches for one in batch]
            yield [(one.index, reasons[one.picture]) for one in asked if one.picture in reasons]
            share = without_pictures(share, set(reasons))
        prefixes = self.engine.prefill(share.firsts, pictures) if share.firsts else None
        known = {(first.picture, tuple(first.prefix)): row for row, first in enumerate(share.firsts)}
        for batch in share.batches:
            self.current = batch[0].index
            answers = [self._answer(one.index) for one in batch]
            places = [known[one.picture, tuple(one.prefix)] for one in batch] if known else []
            rows = self.engine.start(batch, answers, prefixes, places)
            yield list(self.engine.go_on(rows, leave=len(batch) // 4 if can_join(rows.cache) else 0))
            if rows.answers:
                left = self.engine.join(left, rows)
            if left is not None and len(left.answers) > len(batch) // 2:
                yield list(self.engine.go_on(left))
                left = None
        return left

    def _take_pictures(self, firsts: Sequence[Asked]) -> tuple[list[Picture], dict[str | None, Failure]]:
        """The pictures of a share that can be used, and why others cannot."""
        pictures, reasons = [], {}
        for first in firsts:
            try:
                pictures.append(self.pictures.take(picture_of(first)))
            except UsageError as error:
                reasons[first.picture] = Failure(str(error))
        return pictures, reasons

    def _answer(self, index: int) -> Answer:
        """An answer that begins."""
        return Answer(index, self.engine.decoding.source(self.questions[index], self.engine.seed))

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
        """Halve the batches."""
        self.limit = replace(self.limit, rows=self.largest).halved()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("the device's memory was full; going on with batches of %d.", self.limit.rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full: the device's, or main memory in torch's words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or FULL_CPU in str(error)


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
