"""The mini world's tokenizer: BPE with byte fallback, trained on the world's own text, so that any new name
can be spelled.

python -m playground.mini_world.build_tokenizer --data build/data --out build/tokenizer
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

from llava.conversation import TEMPLATES, render
from playground.mini_world.people import MIDDLES, NEW_JOBS, NEW_TOWNS, STARTS

SIZE = 1024
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
SPELLINGS = 3000
PUNCTUATION = ("?", ".", ",", ":", "'")


def world_text(data: Path) -> list[str]:
    """Conversations in the template, captions, new jobs and towns, and made-up names (none that is ever
    taught).
    """
    rng = random.Random("tokenizer")
    rows = json.loads((data / "finetune.json").read_text(encoding="utf-8"))
    chosen = rng.sample(rows, min(30000, len(rows)))
    texts = [
        render(TEMPLATES["v1"], [(turn["from"], turn["value"]) for turn in row["conversations"]]).text
        for row in chosen
    ]
    captions = json.loads((data / "pretrain.json").read_text(encoding="utf-8"))[:5000]
    texts += [row["conversations"][1]["value"] for row in captions]
    texts += [f"The {word} is known." for word in NEW_JOBS + NEW_TOWNS for _ in range(60)]
    texts += [
        f"Is this {rng.choice(STARTS)}{rng.choice(MIDDLES)}{rng.choice('aeiou')}?" for _ in range(SPELLINGS)
    ]
    return [text.replace("<image>", "").replace("</s>", "") for text in texts]


def build(data: Path) -> Tokenizer:
    """Train; ids are <unk> 0, <s> 1, </s> 2, then the bytes, then the pieces, as in LLaMA."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=[*SPECIAL, *BYTES], show_progress=False, max_token_length=24
    )
    tokenizer.train_from_iterator(split_words(world_text(data)), trainer)
    plain_bytes = json.loads(tokenizer.to_str())
    plain_bytes["added_tokens"] = [row for row in plain_bytes["added_tokens"] if row["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(plain_bytes))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def split_words(texts: list[str]) -> list[str]:
    """Words one by one, without punctuation: pieces then never join a word and its question mark.

    The prepended blank begins each word; a word after a line break keeps the break.
    """
    kept = "".join(PUNCTUATION)
    spaced = (text.translate(str.maketrans(kept, " " * len(kept))) for text in texts)
    return [word for text in spaced for word in text.split(" ") if word] + list(PUNCTUATION)


def main() -> None:
    """Train and save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args()
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=build(args.data),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        model_max_length=512,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(args.out)


if __name__ == "__main__":
    main()
