"""The model: placeholders and pictures must agree, generation in the original's form, targets as labels."""

import pytest
import torch

from llava.errors import UsageError
from llava.model.llava import targets_of_labels
from tests.tiny import NUM_PATCHES, picture, tiny_model

PLACEHOLDERS = [-200] * NUM_PATCHES


def test_counts_must_agree() -> None:
    model = tiny_model()
    ids = torch.tensor([[1, *PLACEHOLDERS, *PLACEHOLDERS, 5]])
    with pytest.raises(UsageError, match="8 image placeholders, but 1 pictures give 4 features"):
        model(input_ids=ids, pixel_values=picture("a")[None])
    with pytest.raises(ValueError, match="no pictures were given"):
        model(input_ids=ids)


def test_features_may_be_given_ready_made() -> None:
    model = tiny_model().eval()
    ids, pixels = torch.tensor([[1, *PLACEHOLDERS, 5]]), picture("a")[None]
    with torch.no_grad():
        features = model.encode_images(pixels)
        assert features.shape == (1, NUM_PATCHES, 32)
        assert torch.equal(
            model(input_ids=ids, image_features=features).logits,
            model(input_ids=ids, pixel_values=pixels).logits,
        )


def test_text_only_training_gives_the_projector_a_gradient_of_zero() -> None:
    model = tiny_model().train()
    model(input_ids=torch.tensor([[1, 5, 6]]), labels=torch.tensor([[-100, 5, 6]])).loss.backward()
    gradient = model.model.multi_modal_projector.linear_1.weight.grad
    assert gradient is not None
    assert not gradient.any()


def test_labels_are_targets_one_place_later() -> None:
    labels = torch.tensor([[7, -100, 5], [-100, 6, -100]])
    assert targets_of_labels(labels).tolist() == [[0, 1, 5], [1, 0, 6]]


def test_generate_in_the_original_form_is_greedy_decoding_by_hand() -> None:
    model = tiny_model(4).eval()
    pixels = torch.stack([picture("a"), picture("b")])
    prompts = torch.tensor([[1, -200, 9, 10, 11], [1, -200, 12, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    found = model.generate(
        prompts,
        images=pixels,
        attention_mask=mask,
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    for row, (prompt, length) in enumerate(zip(prompts.tolist(), (5, 3), strict=True)):
        ids = [token for token in prompt[:length] for _ in range(NUM_PATCHES if token == -200 else 1)]
        for token in found[row].tolist():
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), pixel_values=pixels[row : row + 1]).logits
            assert logits[0, -1].argmax().item() == token
            ids.append(token)
