"""Logits equal those of transformers' own LlavaForConditionalGeneration with the same weights."""

import torch
from transformers import LlavaConfig as TransformersConfig
from transformers import LlavaForConditionalGeneration

from llava.constants import IMAGE_TOKEN_INDEX
from tests.tiny import NUM_PATCHES, picture, tiny_model

LOGITS_ATOL = 2e-5  # fp32: worst seen over 20 seeds stands in docs/decisions.md; logits are about 1 to 10


def test_logits_equal_transformers() -> None:
    for seed in range(3):
        ours = tiny_model(seed).eval()
        image_token = 49
        config = TransformersConfig(
            text_config=ours.config.text_config,
            vision_config=ours.config.vision_config,
            image_token_index=image_token,
            image_seq_length=NUM_PATCHES,
        )
        theirs = LlavaForConditionalGeneration(config).eval()
        theirs.load_state_dict(ours.state_dict(), strict=True)
        ids = torch.tensor(
            [[1, 5, *[image_token] * NUM_PATCHES, 9, 10, 11], [1, 6, *[image_token] * NUM_PATCHES, 3, 4, 8]]
        )
        pixels = torch.stack([picture("a"), picture("b")])
        with torch.no_grad():
            wanted = theirs(input_ids=ids, pixel_values=pixels).logits
            placeholders = ids.masked_fill(ids == image_token, IMAGE_TOKEN_INDEX)
            found = ours(input_ids=placeholders, pixel_values=pixels).logits
            original_form = torch.stack(
                [torch.cat([row[:2], row[1 + NUM_PATCHES :]]) for row in placeholders]
            )
            called_so = ours(input_ids=original_form, images=pixels).logits
        torch.testing.assert_close(found, wanted, atol=LOGITS_ATOL, rtol=0)
        torch.testing.assert_close(called_so, wanted, atol=LOGITS_ATOL, rtol=0)
        assert wanted.abs().max() > 0.1, "the logits must not be trivially equal"
