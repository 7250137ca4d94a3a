"""Stop decoding at words: the original's criterion for `generate`, by ids and by text."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from llava.errors import UsageError

EDGE_TOKENS = 2
"""Tokens before a keyword that are decoded with it, so that a blank at its start is not lost."""


class KeywordsStoppingCriteria(StoppingCriteria):
    """A row is done when its newest tokens end with a keyword's ids, or their text holds a keyword.

    Args:
        keywords: texts to stop at; an empty one is a `UsageError`.
        input_ids: the prompt, (B, T). Rows of `generate` that begin with a prompt are looked at behind it;
            others hold new ids only, as `generate(inputs, images=...)` gives them.
    """

    def __init__(
        self, keywords: Sequence[str], tokenizer: PreTrainedTokenizerBase, input_ids: Tensor
    ) -> None:
        if "" in keywords:
            raise UsageError(f"the keywords {list(keywords)!r} hold an empty text; leave it out.")
        self.keywords = list(keywords)
        self.keyword_ids = [ids_of(keyword, tokenizer) for keyword in keywords]
        self.tokenizer = tokenizer
        self.prompts = input_ids
        # a token that is decoded to text covers a byte at least
        longest = max((len(keyword.encode()) for keyword in keywords), default=0)
        self.window = longest + EDGE_TOKENS

    def __call__(self, input_ids: Tensor, scores: object = None, **kwargs: object) -> Tensor:  # type: ignore[override]
        """Which rows are done: (B, T) -> (B,)."""
        new_ids = input_ids[:, self.prompts.shape[1] :] if self._has_prompt(input_ids) else input_ids
        done = [self._is_done(row) for row in new_ids.tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

    def _has_prompt(self, input_ids: Tensor) -> bool:
        """Whether every row begins with one of the prompts."""
        length = self.prompts.shape[1]
        if input_ids.shape[1] < length:
            return False
        equal = input_ids[:, None, :length] == self.prompts.to(input_ids.device)[None]
        return bool(equal.all(-1).any(-1).all())

    def _is_done(self, ids: list[int]) -> bool:
        """Whether a row's new ids have come to a keyword."""
        if any(ids[-len(keyword) :] == keyword for keyword in self.keyword_ids if keyword):
            return True
        tail = [token for token in ids[-self.window :] if token >= 0]
        text = self.tokenizer.decode(tail, skip_special_tokens=True)
        return any(keyword in text for keyword in self.keywords)


def ids_of(keyword: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A keyword's ids without the <s> before them."""
    ids = list(tokenizer(keyword)["input_ids"])
    return ids[1:] if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ids
