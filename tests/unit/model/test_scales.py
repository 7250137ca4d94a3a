"""S2: a picture seen at several sizes, as a plain loop over squares would do it."""

import pytest
import torch
from torch.nn import functional

from llava.errors import UsageError
from llava.model.config import read_scales
from llava.model.vision_tower import cut_into_squares, encode_pictures, encode_scales, join_squares
from tests.tiny import picture, tiny_model


def test_squares_go_apart_and_together() -> None:
    pictures = torch.arange(2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    squares = cut_into_squares(pictures, 2)
    assert torch.equal(squares[2 * 1 + 0], pictures[0, :, 0:2, 2:4]), "the second square of the first row"
    assert torch.equal(squares[2 * 3 + 1], pictures[1, :, 2:4, 0:2]), "the first of the second row"
    assert torch.equal(join_squares(squares, 3), pictures)


def test_features_of_two_sizes_stand_side_by_side() -> None:
    """Each square by itself, each patch of the small size the mean of the four that lie there."""
    model = tiny_model(5, s2=True, s2_scales="8,16").eval()
    tower = model.model.vision_tower
    pictures = functional.interpolate(torch.stack([picture("a"), picture("b")]), size=(16, 16))

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return encode_pictures(tower, pixels, layer=-2, feature="patch")

    found = encode_scales(encode, pictures, scales=(8, 16))
    assert found.shape == (2, 4, 32)
    for number, one in enumerate(pictures):
        small = encode(functional.interpolate(one[None], size=(8, 8), mode="bicubic"))[0]
        torch.testing.assert_close(found[number, :, :16], small, atol=1e-5, rtol=0)  # worst seen 5e-7
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            square = one[None, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            mean = encode(square)[0].mean(0)  # 2 x 2 patches fall on one
            torch.testing.assert_close(found[number, 2 * row + column, 16:], mean, atol=1e-5, rtol=0)
    assert model.encode_images(pictures).shape == (2, 4, 32), "the projector takes both"
    assert model.num_patches == 4


def test_scales_are_the_towers_size_and_multiples() -> None:
    assert read_scales("1008,336,672", 336) == (336, 672, 1008)
    assert read_scales([8, 16], 8) == (8, 16)
    for wrong in ("", "336", "336,x", None, "16,24"):
        with pytest.raises(UsageError, match="s2_scales is"):
            read_scales(wrong, 8)
