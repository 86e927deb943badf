"""Drawn shelves, looked at in any way: what is on a sample stays together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.synthetic import CATEGORIES, draw_shelf, write_shelves
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.mask_grids import mask_targets
from maskrcnn.training.sampler import ShareSampler, StepOrder
from maskrcnn.training.samples import CocoSamples, Sample, keep_samples
from maskrcnn.training.transforms import SampleKey

NUM_IMAGES, SEED = 4, 3
PREPROCESS = PreprocessConfig(min_size_px=200, max_size_px=400)
UNHURRIED = settings(deadline=None, max_examples=60)
AUGMENTATIONS = st.one_of(
    st.builds(AugmentConfig, flip_probability=st.floats(0, 1), color_jitter=st.just(0.0)),
    st.builds(AugmentConfig, short_sides_px=st.sampled_from([(64, 200), (500,)])),
    st.builds(AugmentConfig, scale_jitter=st.sampled_from([(0.1, 2.0), (3.0, 6.0)]), crop_size_px=st.just(256)),
)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoDataset, str]:
    folder = tmp_path_factory.mktemp("shelves")
    return load_coco(str(write_shelves(folder, NUM_IMAGES, SEED, width=200))), str(folder / "images")


def mask_extents(sample: Sample) -> np.ndarray:
    """The boxes around what the grids hold, (N, 4) px of the network's input; NaN for empty grids."""
    extents = np.full((len(sample.grids), 4), np.nan)
    for extent, grid, (left, top, width, height) in zip(
        extents, sample.grids.numpy(), sample.frames.tolist(), strict=True
    ):
        rows, columns = np.nonzero(grid)
        if len(rows):
            ends = left + (columns.max() + 1) * width, top + (rows.max() + 1) * height
            # Beyond the far edges, the grid repeats the last cells.
            x1, y1 = min(ends[0], sample.size[1]), min(ends[1], sample.size[0])
            extent[:] = left + columns.min() * width, top + rows.min() * height, x1, y1
    return extents


@UNHURRIED
@given(AUGMENTATIONS, st.integers(0, 1000), st.integers(0, NUM_IMAGES - 1))
def test_a_box_encloses_its_mask_and_no_more_where_nothing_shrinks(
    shelves: tuple[CocoDataset, str], config: AugmentConfig, epoch: int, index: int
) -> None:
    samples = CocoSamples(*shelves, PREPROCESS, config)
    sample = samples[SampleKey(epoch, index)]
    boxes, extents = sample.boxes.numpy(), mask_extents(sample)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= np.array([sample.size[1], sample.size[0]] * 2) + 1e-3).all()
    seen = ~np.isnan(extents).any(axis=1)
    cells = np.tile(sample.frames.numpy()[:, 2:], 2)
    view = samples.view_of(sample.key)
    scale = sample.size[1] / (view.window[2] - view.window[0])
    # An edge is within one px of either image, or one cell, of where its mask ends.
    slack = np.maximum(cells, max(scale, 1))[seen] + 1e-2
    beyond = (extents - boxes)[seen] * [-1, -1, 1, 1]
    assert (beyond <= slack).all()
    if scale >= 1:  # else a tip of one px may vanish
        assert (beyond >= -slack).all()
    # Only what is less than a px of the network's input may vanish.
    assert ((boxes[:, 2:] - boxes[:, :2]).min(axis=1)[~seen] <= 1).all()
    assert len(set(sample.annotation_ids)) == len(sample.annotation_ids) == len(boxes)


@UNHURRIED
@given(AUGMENTATIONS, st.integers(0, 1000), st.integers(0, NUM_IMAGES - 1))
def test_a_key_is_all_that_a_sample_depends_on(
    shelves: tuple[CocoDataset, str], config: AugmentConfig, epoch: int, index: int
) -> None:
    key = SampleKey(epoch, index)
    first, again = CocoSamples(*shelves, PREPROCESS, config)[key], CocoSamples(*shelves, PREPROCESS, config)[key]
    for name in ("image", "boxes", "labels", "grids", "frames"):
        assert getattr(first, name).equal(getattr(again, name))
    view = CocoSamples(*shelves, PREPROCESS, config).view_of(key)
    left, top, right, bottom = view.window
    assert first.size == view.size
    assert first.image.shape == (3, bottom - top, right - left)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_drawn_shelves_arrive_as_drawn_whoever_loads_them(shelves: tuple[CocoDataset, str], num_workers: int) -> None:
    as_drawn = PreprocessConfig(min_size_px=160, max_size_px=400)  # shelves are 200 x 160 px
    samples = CocoSamples(*shelves, as_drawn, AugmentConfig(flip_probability=0, color_jitter=0))
    order = StepOrder(np.zeros(NUM_IMAGES, np.int64), global_batch_size=3, seed=0)
    sampler = ShareSampler(order, range(4), rank=0, world_size=1)
    loader = DataLoader(samples, batch_sampler=sampler, collate_fn=keep_samples, num_workers=num_workers)  # type: ignore[arg-type]
    batches: list[list[Sample]] = list(loader)
    assert [[sample.key for sample in batch] for batch in batches] == [order.keys_of(step) for step in range(4)]
    labels_of = {category_id: label for label, category_id in enumerate(CATEGORIES, start=1)}
    for sample in [sample for batch in batches for sample in batch]:
        drawn = draw_shelf((SEED, sample.image_id), width=200).instances
        assert sample.image_id == sample.key.sample_index + 1
        assert sample.labels.tolist() == [labels_of[instance.category_id] for instance in drawn]
        whole = torch.tensor([[0.0, 0.0, 200.0, 160.0]]).repeat(len(drawn), 1)
        shares = mask_targets(sample.grids, sample.frames, whole, torch.arange(len(drawn)), 20).mean((1, 2))
        expected = [instance.mask.mean() for instance in drawn]
        np.testing.assert_allclose(shares.numpy(), expected, atol=0.002)
