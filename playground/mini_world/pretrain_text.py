"""The mini world's language model: a small LLaMA that has read the world's captions, questions and answers as
text.

    python -m playground.mini_world.pretrain_text --data build/data --tokenizer build/tokenizer --out
    build/language_model

It knows no picture yet: that is what the projector stage and the instruction tuning are for.
"""

import argparse
import json
import logging
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llava.conversation import TEMPLATES, render

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

logger = logging.getLogger("mini_world")

HIDDEN_SIZE = 192
LAYERS = 5
HEADS = 6
FEED_FORWARD = 512
CONTEXT = 512


def read_texts(data: Path, *, seed: int, num_questions: int) -> list[str]:
    """Captions, text-only conversations, and some picture questions with the picture left out, shuffled."""
    captions = [row["conversations"][1]["value"] + "\n" for row in read_rows(data / "pretrain.json")]
    questions = read_rows(data / "finetune.json")
    rng = random.Random(seed)
    chosen = rng.sample(questions, min(num_questions, len(questions))) + read_rows(data / "text.json")
    texts = captions + [as_text(row) for row in chosen]
    rng.shuffle(texts)
    return texts


def read_rows(file: Path) -> list[dict]:
    """A conversation JSON."""
    return json.loads(file.read_text(encoding="utf-8"))


def as_text(row: dict) -> str:
    """A conversation in the template v1, without its picture."""
    turns = [(turn["from"], turn["value"].replace("<image>\n", "")) for turn in row["conversations"]]
    return render(TEMPLATES["v1"], turns).text


def as_blocks(texts: list[str], tokenizer: "PreTrainedTokenizerBase", *, length: int) -> "Tensor":
    """All texts one after another, each from <s> on, cut into rows: (rows, length) ids."""
    import torch

    ids = [token for row in tokenizer(texts).input_ids for token in row]
    rows = len(ids) // length
    return torch.tensor(ids[: rows * length]).view(rows, length)


def new_language_model(tokenizer: "PreTrainedTokenizerBase", *, seed: int) -> "LlamaForCausalLM":
    """A random LLaMA of the mini world's size."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def train(model: "LlamaForCausalLM", blocks: "Tensor", *, steps: int, batch_size: int, rate: float) -> float:
    """AdamW with warm-up and cosine; returns the mean loss of the last 50 steps."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=warm_up / steps, anneal_strategy="cos"
    )
    losses = []
    order = torch.randperm(len(blocks))
    for step in range(steps):
        rows = order[torch.arange(step * batch_size, (step + 1) * batch_size) % len(order)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=blocks[rows], labels=blocks[rows], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            logger.info("step %d of %d, loss %.3f", step + 1, steps, sum(losses[-50:]) / 50)
    return sum(losses[-50:]) / len(losses[-50:])


def main() -> None:
    """Read, train, save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--tokenizer", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--learning-rate", type=float, default=3e-3)
    options.add_argument("--questions", type=int, default=30000)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from llava.tokenizer import load_tokenizer

    started = time.perf_counter()
    tokenizer = load_tokenizer(args.tokenizer)
    texts = read_texts(args.data, seed=args.seed, num_questions=args.questions)
    blocks = as_blocks(texts, tokenizer, length=CONTEXT // 2)
    logger.info("%d texts, %d rows of %d tokens", len(texts), *blocks.shape)
    model = new_language_model(tokenizer, seed=args.seed)
    loss = train(model, blocks, steps=args.steps, batch_size=args.batch_size, rate=args.learning_rate)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    logger.info("loss %.3f after %.0f s, saved to %s", loss, time.perf_counter() - started, args.out)


if __name__ == "__main__":
    main()
