"""What an image is resized to, padded to and decoded at follows from its size and the config."""

from __future__ import annotations

import pytest

from maskrcnn.config import PreprocessConfig
from maskrcnn.model.shapes import bucket_shape, decode_scale_for, resized_shape
from tests.live_network import PREPROCESS


def test_shapes_follow_from_the_image_alone() -> None:
    for size, resized, bucket in [
        ((100, 150), (64, 96), (64, 96)),
        ((100, 151), (63, 96), (64, 96)),
        ((1, 1), (64, 64), (64, 64)),
        ((2, 3000), (1, 96), (32, 96)),
        ((3000, 2), (96, 1), (96, 32)),
        ((65, 64), (65, 64), (96, 64)),
    ]:
        assert resized_shape(*size, PREPROCESS) == resized
        assert bucket_shape(*size, PREPROCESS) == bucket
        assert bucket_shape(*size, PreprocessConfig(64, 96, pad_multiple_px=128)) == (128, 128)


@pytest.mark.parametrize(
    ("size", "shorter_and_longer", "allowed", "scale"),
    [
        ((3000, 4000), (800, 1333), 8, 2),  # becomes 800 x 1066; a quarter is 750 x 1000
        ((3000, 4000), (800, 1333), 1, 1),
        ((3200, 4000), (800, 1333), 8, 4),  # a quarter is 800 high, just enough
        ((3196, 4000), (800, 1333), 8, 2),
        ((3197, 4000), (800, 1333), 8, 4),  # 799.25 is decoded as 800
        ((3200, 4000), (800, 1333), 2, 2),
        ((4000, 3200), (800, 1333), 8, 4),
        ((1000, 8000), (800, 1333), 8, 4),  # becomes 166 x 1333: the longer side rules
        ((1000, 10664), (800, 1333), 8, 8),
        ((6400, 6400), (800, 1333), 8, 8),
        ((20000, 20000), (800, 1333), 8, 8),
        ((800, 1066), (800, 1333), 8, 1),
        ((100, 100), (800, 1333), 8, 1),  # is enlarged
        ((1, 3000), (32, 64), 8, 8),
        ((1, 1), (32, 64), 8, 1),
    ],
)
def test_the_scale_follows_from_the_size_and_the_config(
    size: tuple[int, int], shorter_and_longer: tuple[int, int], allowed: int, scale: int
) -> None:
    assert decode_scale_for(*size, PreprocessConfig(*shorter_and_longer, decode_scale=allowed)) == scale
