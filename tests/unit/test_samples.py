"""Samples from COCO files: what is on them, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from maskrcnn.coco.annotations import load_coco, parse_coco
from maskrcnn.errors import AnnotationError
from maskrcnn.synthetic import CATEGORIES, draw_shelf, write_shelves
from maskrcnn.training.samples import CocoSamples, batch_keys, collate, epoch_indices
from maskrcnn.training.transforms import AugmentConfig, SampleKey

AS_IT_IS = AugmentConfig(flip_probability=0, color_jitter=0)
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]


def _samples(tmp_path: Path, annotations: list[dict[str, Any]], config: AugmentConfig = AS_IT_IS) -> CocoSamples:
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    document = {
        "images": [{"id": 42, "file_name": "one.png", "width": 8, "height": 6}],
        "annotations": [
            {"id": index, "image_id": 42, "category_id": 5, "iscrowd": 0, **annotation}
            for index, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 5, "name": "box"}, {"id": 2, "name": "bottle"}],
    }
    return CocoSamples(parse_coco(document, "coco.json"), str(tmp_path), config)


def test_a_sample_holds_pixels_boxes_labels_and_masks(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [{"bbox": [1, 1, 2, 2], "segmentation": [SQUARE]}])
    sample = samples[SampleKey(3, 0)]
    assert len(samples) == 1
    assert sample.image.dtype == torch.uint8
    assert sample.image[:, 0, 1].tolist() == [3, 4, 5]
    assert sample.boxes.tolist() == [[1, 1, 3, 3]]
    assert sample.labels.tolist() == [2]  # ids 2 and 5 become labels 1 and 2
    assert sample.masks[0].int().tolist() == [
        [1 if 1 <= x < 3 and 1 <= y < 3 else 0 for x in range(8)] for y in range(6)
    ]
    assert (sample.image_id, sample.key) == (42, (3, 0))


def test_what_cannot_be_learnt_from_is_left_out_and_counted(tmp_path: Path) -> None:
    nothing = {"size": [6, 8], "counts": [48]}
    samples = _samples(
        tmp_path,
        [
            {"bbox": [1, 1, 2, 2], "segmentation": [SQUARE]},
            {"bbox": [0, 0, 8, 6], "segmentation": {"size": [6, 8], "counts": [0, 48]}, "iscrowd": 1},
            {"bbox": [1, 1, 2, 2]},
            {"bbox": [1, 1, 0, 2], "segmentation": [SQUARE]},
            {"bbox": [9, 1, 2, 2], "segmentation": [SQUARE]},
            {"bbox": [1, 1, 2, 2], "segmentation": nothing},
        ],
    )
    assert samples.num_left_out == {"crowd": 1, "no mask": 1, "degenerate box": 2}
    sample = samples[SampleKey(0, 0)]
    assert len(sample.boxes) == 1
    assert sample.num_left_out == 1
    assert collate([sample, sample]).num_left_out == 2


def test_a_missing_box_is_the_one_around_the_mask_and_a_large_one_is_cut(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [{"segmentation": [SQUARE]}, {"bbox": [-2, 1, 90, 2], "segmentation": [SQUARE]}])
    assert samples[SampleKey(0, 0)].boxes.tolist() == [[1, 1, 3, 3], [0, 1, 8, 3]]


def test_an_image_without_instances_is_a_sample_too(tmp_path: Path) -> None:
    sample = _samples(tmp_path, [])[SampleKey(0, 0)]
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert sample.masks.shape == (0, 6, 8)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [])
    Image.new("RGB", (6, 8)).save(tmp_path / "one.png")
    with pytest.raises(AnnotationError, match=r"image 42 must be 8 x 6 px as annotated, got 6 x 8, in .*one.png"):
        samples[SampleKey(0, 0)]


def test_a_broken_image_is_refused(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [])
    (tmp_path / "one.png").write_bytes(b"<html>")
    with pytest.raises(AnnotationError, match=r"image 42 must be a sound image file: .*, in .*one.png"):
        samples[SampleKey(0, 0)]


def test_small_sets_are_read_once_and_large_ones_every_time(tmp_path: Path) -> None:
    cached = _samples(tmp_path, [])
    cached[SampleKey(0, 0)]
    (tmp_path / "one.png").unlink()
    assert cached[SampleKey(1, 0)].image.shape == (3, 6, 8)
    coco = cached._coco
    with pytest.raises(Exception, match="one.png"):
        CocoSamples(coco, str(tmp_path), AS_IT_IS, max_cache_bytes=100)[SampleKey(0, 0)]


def test_augmentation_differs_between_epochs_and_is_the_same_on_every_call(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [{"bbox": [1, 1, 2, 2], "segmentation": [SQUARE]}], AugmentConfig(0.5, 0.4))
    epochs = [samples[SampleKey(epoch, 0)] for epoch in range(20)]
    assert {tuple(sample.boxes[0].tolist()) for sample in epochs} == {(1, 1, 3, 3), (5, 1, 7, 3)}
    assert len({sample.image.sum().item() for sample in epochs}) > 10
    assert samples[SampleKey(7, 0)].image.equal(epochs[7].image)


def test_drawn_shelves_arrive_as_drawn_through_worker_processes(tmp_path: Path) -> None:
    annotations_path = write_shelves(tmp_path, num_images=5, seed=3)
    samples = CocoSamples(load_coco(str(annotations_path)), str(tmp_path / "images"), AS_IT_IS)
    batches = [batch_keys(first, 2, seed=0, num_samples=5) for first in (0, 2, 4)]
    loader = DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    seen = [(key, image_id, target) for b in loader for key, image_id, target in zip(b.keys, b.image_ids, b.targets)]  # noqa: B905
    assert [key for key, _, _ in seen[:5]] == [(0, index) for index in epoch_indices(0, 0, 5)]
    labels_of = {category_id: label for label, category_id in enumerate(CATEGORIES, start=1)}
    for key, image_id, target in seen:
        drawn = draw_shelf((3, image_id)).instances
        assert image_id == key.sample_index + 1
        assert target["labels"].tolist() == [labels_of[instance.category_id] for instance in drawn]
        assert np.array_equal(target["masks"].numpy(), np.stack([instance.mask for instance in drawn]))
