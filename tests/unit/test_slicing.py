"""Tiles, and what they saw put together: exact with a predictor that is exact."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.config import PreprocessConfig, SliceConfig
from maskrcnn.errors import InputError
from maskrcnn.images import ImageHeader
from maskrcnn.model.decode import DecodedImage, decode_image, decoded_bytes
from maskrcnn.model.detections import Detections
from maskrcnn.model.slicing import SlicedPredictor, tile_windows
from maskrcnn.synthetic import draw_shelf
from tests.blobs import BlobPredictor, as_rows, paint


@pytest.mark.parametrize(("height", "width"), [(600, 900), (1025, 1024), (64, 3000), (200, 201), (131, 97)])
@pytest.mark.parametrize(("side", "overlap"), [(1024, 0.2), (128, 0.0), (64, 0.89), (100, 0.7)])
def test_tiles_cover_every_px_are_of_one_size_and_overlap_as_asked(
    height: int, width: int, side: int, overlap: float
) -> None:
    tiles = tile_windows(height, width, side, overlap)
    assert {(tile.width, tile.height) for tile in tiles} == {(min(side, width), min(side, height))}
    for starts, length in ((sorted({tile.x for tile in tiles}), width), (sorted({tile.y for tile in tiles}), height)):
        assert starts[0] == 0
        assert starts[-1] + min(side, length) == length
        assert all(first + side - second >= overlap * side for first, second in itertools.pairwise(starts))
    assert len(set(tiles)) == len(tiles)


def test_a_small_image_is_one_tile() -> None:
    for height, width in ((1024, 1024), (1, 1), (300, 1024)):
        [tile] = tile_windows(height, width, 1024, 0.2)
        assert (tile.x, tile.y, tile.width, tile.height) == (0, 0, width, height)
    assert len(tile_windows(4000, 6000, 1024, 0.2)) == 40


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def paint_shelf(seed: int, width: int, height: int, num_boards: int) -> torch.Tensor:
    shelf = draw_shelf(seed, width=width, height=height, num_boards=num_boards)
    masks = [instance.mask for instance in shelf.instances]
    return as_tensor(paint((height, width), masks, [1 + index % 3 for index in range(len(masks))]))


@pytest.mark.parametrize("pieces", ["nms", "merge"])
@pytest.mark.parametrize(("side", "overlap"), [(128, 0.3), (160, 0.5), (96, 0.0)])
def test_sliced_equals_whole_where_the_whole_image_shows_everything(side: int, overlap: float, pieces: str) -> None:
    """Tiles cut most products; not a row is lost, doubled or moved, though each piece scores better than its whole."""
    image = paint_shelf(3, width=400, height=260, num_boards=2)
    [expected] = BlobPredictor()([image])
    assert len(expected) > 15
    sliced = SlicedPredictor(BlobPredictor(), SliceConfig(side, overlap, slice_merge=pieces))  # type: ignore[arg-type]
    assert as_rows(sliced([image])[0]) == as_rows(expected)
    without_masks = sliced([image], with_masks=False)[0]
    assert without_masks.rles == []


def test_tiles_find_what_is_too_small_in_the_whole_image() -> None:
    """Products of about 30 px are 4 px in the whole image's input, 16 px in a tile's; the overlap holds each whole."""
    image = paint_shelf(5, width=900, height=400, num_boards=8)
    [truth] = BlobPredictor()([image])
    blind = BlobPredictor(min_side_px=5)
    assert len(blind([image])[0]) < 0.1 * len(truth)
    [found] = SlicedPredictor(blind, SliceConfig(192, 0.4))([image])
    is_seen = [np.sqrt(1e6 * (1 - row[0])) * 128 / 192 >= 5 for row in as_rows(truth)]  # type: ignore[operator]
    assert as_rows(found) == [row for row, seen in zip(as_rows(truth), is_seen, strict=True) if seen]
    assert len(found) > 0.8 * len(truth)


def bar(pieces: str, threshold: float) -> tuple[Detections, Detections]:
    """A bar too long for any tile, and too small in the whole image: what is found, and the truth."""
    mask = np.zeros((200, 300), bool)
    mask[90:100, 20:200] = True
    image = as_tensor(paint(mask.shape, [mask], [2]))
    config = SliceConfig(128, 0.3, slice_merge=pieces, slice_threshold=threshold)  # type: ignore[arg-type]
    [found] = SlicedPredictor(BlobPredictor(min_side_px=25), config)([image])
    return found, BlobPredictor()([image])[0]


def test_pieces_of_what_nobody_saw_whole_are_united_on_request() -> None:
    found, truth = bar("merge", 0.3)
    assert found.rles == truth.rles
    assert found.boxes.tolist() == truth.boxes.tolist() == [[20, 90, 200, 100]]
    found, _ = bar("nms", 0.3)
    assert len(found) == 1
    assert found.rles != truth.rles


def test_an_image_no_larger_than_a_tile_is_looked_at_once_as_without_slicing() -> None:
    blobs = BlobPredictor()
    small, large = paint_shelf(1, 128, 100, 1), paint_shelf(2, 200, 100, 1)
    found = SlicedPredictor(blobs, SliceConfig(128), batch_size=100)([small, large])
    assert [image.size for image in blobs.seen] == [(100, 128), (100, 200), (100, 128), (100, 128)]
    assert as_rows(found[0]) == as_rows(BlobPredictor()([small])[0])


def test_a_small_jpeg_is_decoded_as_without_slicing_and_a_large_one_whole() -> None:
    preprocess = PreprocessConfig(min_size_px=32, max_size_px=64, decode_scale=8)
    for width, whole, reduced in ((256, (3, 48, 64), (3, 48, 64)), (260, (3, 192, 260), (3, 48, 65))):
        file = io.BytesIO()
        Image.new("RGB", (width, 192)).save(file, "JPEG")
        header = ImageHeader("JPEG", width, 192, 1)
        for limit, shape in ((256, whole), (None, reduced)):
            decoded = decode_image(file.getvalue(), preprocess, whole_above_px=limit)
            assert isinstance(decoded, DecodedImage)
            assert tuple(decoded.pixels.shape) == shape
            assert decoded_bytes(header, preprocess, limit) == decoded.pixels.numel()


def test_views_are_reduced_as_a_jpeg_of_their_size_would_be() -> None:
    watching = BlobPredictor()
    watching.preprocess = PreprocessConfig(min_size_px=32, max_size_px=64, decode_scale=8)
    image = torch.arange(3 * 300 * 400).remainder(251).to(torch.uint8).reshape(3, 300, 400)
    SlicedPredictor(watching, SliceConfig(128))([image])
    seen = watching.seen
    whole, *tiles = [(tuple(each.pixels.shape[1:]), each.size) for each in seen]
    assert whole == ((38, 50), (300, 400))
    assert set(tiles) == {((32, 32), (128, 128))}
    assert torch.equal(seen[1].pixels[:, 0, 0].float(), image[:, :4, :4].float().mean(dim=(1, 2)).round())
    assert torch.equal(seen[0].pixels[:, -1, 0].float(), image[:, -8:, :8].float().mean(dim=(1, 2)).round())


def test_tiles_go_together_in_batches_of_bounded_size() -> None:
    blobs = BlobPredictor()
    SlicedPredictor(blobs, SliceConfig(128, 0.2), batch_size=4)([paint_shelf(1, 300, 200, 1)] * 2)
    assert blobs.batch_sizes == [4, 4, 4, 2]


def test_the_maximum_of_detections_holds_for_the_whole_image() -> None:
    image = paint_shelf(3, width=400, height=260, num_boards=2)
    few = BlobPredictor(max_detections=12)
    [found] = SlicedPredictor(few, SliceConfig(128, 0.3))([image])
    [truth] = BlobPredictor()([image])
    assert as_rows(found) == as_rows(truth)[:12]


def test_an_image_decoded_at_a_reduced_scale_is_no_use() -> None:
    reduced = DecodedImage(torch.zeros(3, 100, 100, dtype=torch.uint8), (400, 400))
    with pytest.raises(ValueError, match="must be decoded whole"):
        SlicedPredictor(BlobPredictor(), SliceConfig(128))([reduced])


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="image 1 must be a"):
        SlicedPredictor(BlobPredictor(), SliceConfig(128))([torch.zeros(3, 9, 9, dtype=torch.uint8), 7])  # type: ignore[list-item]


def test_the_job_can_ask_for_the_settings() -> None:
    blobs = BlobPredictor()
    sliced = SlicedPredictor(blobs, SliceConfig(128))
    for name in ("preprocess", "thresholds", "categories", "bundle_sha256"):
        assert getattr(sliced, name) == getattr(blobs, name)
    assert sliced.whole_above_px == 128
