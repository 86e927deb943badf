"""Samples from COCO files: what is on them, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.coco.annotations import parse_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import AnnotationError, NotFoundError
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.mask_grids import GRID_SIDE
from maskrcnn.training.samples import CocoSamples, Sample, keep_samples
from maskrcnn.training.transforms import SampleKey

AS_IT_IS = AugmentConfig(flip_probability=0, color_jitter=0)
MIRRORED = AugmentConfig(flip_probability=1, color_jitter=0)
TWICE = PreprocessConfig(min_size_px=96, max_size_px=128)  # 64 x 48 px become 128 x 96
FIRST = SampleKey(0, 0)
WIDTH, HEIGHT = 64, 48
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
BOX = [10, 10, 20, 20]
NOTHING = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
LEFT_HALF = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH // 2, HEIGHT * WIDTH // 2]}


def _samples(
    tmp_path: Path, annotations: list[dict[str, Any]], config: AugmentConfig = AS_IT_IS, **options: Any
) -> CocoSamples:
    """Image 42 with annotations 100, 101, ..., and image 43 with none."""
    pixels = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)
    for name in ("one.png", "two.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    document = {
        "images": [
            {"id": 42, "file_name": "one.png", "width": WIDTH, "height": HEIGHT},
            {"id": 43, "file_name": "two.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 100 + index, "image_id": 42, "category_id": 5, **annotation}
            for index, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 5, "name": "box"}, {"id": 2, "name": "bottle"}],
    }
    return CocoSamples(parse_coco(document, "coco.json"), str(tmp_path), TWICE, config, **options)


def test_a_sample_holds_pixels_and_what_is_on_them_in_px_of_the_network(tmp_path: Path) -> None:
    samples = _samples(
        tmp_path,
        [{"bbox": BOX, "segmentation": [SQUARE]}, {"bbox": [0, 0, 4, 2], "segmentation": [SQUARE], "category_id": 2}],
    )
    sample = samples[SampleKey(3, 0)]
    assert len(samples) == 2
    assert (sample.image.dtype, sample.image.shape, sample.size) == (torch.uint8, (3, HEIGHT, WIDTH), (96, 128))
    assert sample.image[:, 0, 1].tolist() == [3, 4, 5]
    assert sample.boxes.tolist() == [[20, 20, 60, 60], [0, 0, 8, 4]]
    assert sample.labels.tolist() == [2, 1]  # ids 2 and 5 become labels 1 and 2
    assert sample.frames[0].tolist() == [19, 19, 1, 1]
    assert sample.grids[0, 1:41, 1:41].eq(255).all()
    assert sample.grids[0].long().sum() == 1600 * 255
    assert (sample.image_id, sample.key, sample.annotation_ids) == (42, (3, 0), (100, 101))
    assert samples.image_id(FIRST) == 42
    assert sample.ignored is None  # annotations that do not say iscrowd are instances
    assert keep_samples([sample]) == [sample]


def test_a_mirrored_sample_has_all_of_it_mirrored(tmp_path: Path) -> None:
    crowd = {"segmentation": LEFT_HALF, "iscrowd": 1}
    plain = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}, crowd])[FIRST]
    mirrored = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}, crowd], MIRRORED)[FIRST]
    assert mirrored.image.equal(plain.image.flip(-1))
    assert mirrored.boxes.tolist() == [[68, 20, 108, 60]]
    assert mirrored.frames.tolist() == [[67, 19, 1, 1]]
    assert plain.ignored is not None
    assert mirrored.ignored is not None
    assert mirrored.ignored.equal(plain.ignored.flip(-1))


def test_a_crowd_is_an_area_where_nothing_is_learnt_and_no_instance(tmp_path: Path) -> None:
    annotations = [
        {"segmentation": LEFT_HALF, "iscrowd": 1},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 1, HEIGHT * WIDTH - 1]}, "iscrowd": 1},
        {"bbox": BOX, "segmentation": [SQUARE], "iscrowd": 0},
    ]
    samples = _samples(tmp_path, annotations)
    sample = samples[FIRST]
    assert sample.ignored is not None
    assert (sample.ignored.dtype, sample.ignored.shape) == (torch.bool, (HEIGHT, WIDTH))
    assert sample.ignored[:, : WIDTH // 2].all()
    assert not sample.ignored[:, WIDTH // 2 :].any()
    assert sample.annotation_ids == (102,)
    assert (samples.counts.num_crowds, samples.counts.left_out) == (2, {})
    assert samples[SampleKey(0, 1)].ignored is None
    assert _samples(tmp_path, annotations, crowds_are_ignored=False)[FIRST].ignored is None


def test_an_area_of_a_crowd_is_cut_to_what_is_seen(tmp_path: Path) -> None:
    config = AugmentConfig(flip_probability=0, color_jitter=0, scale_jitter=(2.0, 4.0), crop_size_px=64)
    samples = _samples(tmp_path, [{"segmentation": LEFT_HALF, "iscrowd": 1}], config)
    for epoch in range(20):
        key = SampleKey(epoch, 0)
        left, top, right, bottom = samples.view_of(key).window
        ignored = samples[key].ignored
        assert ignored is not None
        assert ignored.shape == (bottom - top, right - left)
        assert ignored.sum() == (bottom - top) * max(0, min(right, WIDTH // 2) - left)


def test_what_cannot_be_learnt_from_is_left_out_and_counted_with_the_first_named(tmp_path: Path) -> None:
    samples = _samples(
        tmp_path,
        [
            {"bbox": BOX, "segmentation": [SQUARE]},
            {"bbox": BOX},
            {"bbox": [1, 1, 0, 2], "segmentation": [SQUARE]},
            {"bbox": [WIDTH + 1, 1, 2, 2], "segmentation": [SQUARE]},
            {"bbox": [40, 1, 1e-6, 2], "segmentation": [SQUARE]},  # an inside that float32 does not have
            {"bbox": BOX, "segmentation": NOTHING},
        ],
    )
    counts = samples.counts
    assert counts.left_out == {"no mask": 1, "degenerate box": 3}
    assert counts.first_left_out == {
        "no mask": "annotation 101 (image 42)",
        "degenerate box": "annotation 102 (image 42)",
    }
    assert counts.instances_by_category == {"bottle": 0, "box": 2}
    sample = samples[FIRST]
    assert sample.annotation_ids == (100,)
    assert len(sample.left_out_ids) == 1
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()


def test_a_missing_box_is_the_one_around_the_mask_and_a_large_one_is_cut(tmp_path: Path) -> None:
    annotations = [{"segmentation": [SQUARE]}, {"bbox": [-2, 10, 900, 20], "segmentation": [SQUARE]}]
    assert _samples(tmp_path, annotations)[FIRST].boxes.tolist() == [[20, 20, 60, 60], [0, 20, 128, 60]]
    assert _samples(tmp_path, annotations, MIRRORED)[FIRST].boxes[0].tolist() == [68, 20, 108, 60]


def test_an_image_without_instances_is_a_sample_too(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}])
    assert samples.is_negative().tolist() == [False, True]
    assert (samples.counts.num_images, samples.counts.num_negatives) == (2, 1)
    sample = samples[SampleKey(0, 1)]
    assert sample.boxes.shape == sample.frames.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert sample.labels.dtype == torch.int64
    assert sample.grids.shape == (0, GRID_SIDE, GRID_SIDE)
    only_crowds = _samples(tmp_path, [{"segmentation": LEFT_HALF, "iscrowd": 1}])
    assert only_crowds.is_negative().tolist() == [True, True]


def test_instances_outside_a_view_are_not_on_its_sample(tmp_path: Path) -> None:
    config = AugmentConfig(flip_probability=0, color_jitter=0, scale_jitter=(3.0, 3.0), crop_size_px=64)
    samples = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}], config)
    seen = {len(samples[SampleKey(epoch, 0)].boxes) for epoch in range(40)}
    assert seen == {0, 1}
    assert {samples[SampleKey(epoch, 0)].left_out_ids for epoch in range(40)} == {()}


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [])
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "one.png")
    with pytest.raises(AnnotationError, match=r"image 42 must be 64 x 48 px as annotated, got 48 x 64, in .*one.png"):
        samples[FIRST]


def test_a_broken_image_is_refused(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [])
    (tmp_path / "one.png").write_bytes(b"<html>")
    with pytest.raises(AnnotationError, match=r"image 42 must be a sound image file: .*, in .*one.png"):
        samples[FIRST]
    (tmp_path / "two.png").unlink()
    with pytest.raises(NotFoundError, match="two.png"):
        samples[SampleKey(0, 1)]


def test_augmentation_differs_between_epochs_and_is_the_same_on_every_call(tmp_path: Path) -> None:
    samples = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}], AugmentConfig(0.5, 0.4))
    epochs = [samples[SampleKey(epoch, 0)] for epoch in range(20)]
    assert {tuple(sample.boxes[0].tolist()) for sample in epochs} == {(20, 20, 60, 60), (68, 20, 108, 60)}
    assert len({sample.image.sum().item() for sample in epochs}) > 10
    again = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}], AugmentConfig(0.5, 0.4))[SampleKey(7, 0)]
    for name in ("image", "boxes", "labels", "grids", "frames"):
        assert getattr(again, name).equal(getattr(epochs[7], name))
    other = _samples(tmp_path, [], AugmentConfig(0.5, 0.4), seed=1)[SampleKey(7, 0)]
    assert not other.image.equal(epochs[7].image)


@pytest.mark.parametrize(
    ("config", "decode_scale", "expected"),
    [
        (AS_IT_IS, 1, (480, 640)),
        (AS_IT_IS, 8, (120, 160)),  # of 96 x 128 px in the network
        (AS_IT_IS, 2, (240, 320)),
        (AugmentConfig(0, 0, short_sides_px=(200,)), 8, (240, 320)),  # larger than --min-size
        (AugmentConfig(0, 0, scale_jitter=(0.2, 0.2), crop_size_px=640), 8, (120, 160)),
        (AugmentConfig(0, 0, scale_jitter=(1.0, 1.0), crop_size_px=640), 8, (480, 640)),
    ],
)
def test_large_jpegs_are_reduced_but_never_below_what_they_are_resized_to(
    tmp_path: Path, config: AugmentConfig, decode_scale: int, expected: tuple[int, int]
) -> None:
    ramp = np.add.outer(np.arange(480), np.arange(640)) * 255 // 1120
    Image.fromarray(ramp.astype(np.uint8)).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    document = {
        "images": [{"id": 1, "file_name": "large.jpg", "width": 640, "height": 480}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": [SQUARE]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    coco = parse_coco(document, "coco.json")
    whole = CocoSamples(coco, str(tmp_path), TWICE, config)
    preprocess = PreprocessConfig(min_size_px=96, max_size_px=128, decode_scale=decode_scale)
    reduced = CocoSamples(coco, str(tmp_path), preprocess, config)
    assert reduced.view_of(FIRST) == whole.view_of(FIRST)
    sample = reduced[FIRST]
    assert sample.image.shape[1:] == expected
    assert sample.boxes.equal(whole[FIRST].boxes)
    assert sample.grids.equal(whole[FIRST].grids)
    assert abs(sample.image.float().mean() - whole[FIRST].image.float().mean()) < 1


def test_messages_name_image_file_and_annotations(tmp_path: Path) -> None:
    crowd = {"segmentation": LEFT_HALF, "iscrowd": 1}
    samples = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}] * 2 + [crowd])
    assert samples.describe(FIRST) == "image 42 (one.png; annotations 100, 101)"
    assert samples.describe(SampleKey(0, 1)) == "image 43 (two.png; annotations none)"
    many = _samples(tmp_path, [{"bbox": BOX, "segmentation": [SQUARE]}] * 23)
    assert many.describe(FIRST).endswith("118, 119 and 3 more)")


def test_parts_that_do_not_fit_together_are_no_sample() -> None:
    image, grids = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(1, GRID_SIDE, GRID_SIDE, dtype=torch.uint8)
    boxes, labels, frames = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4)
    Sample(image, (2, 2), boxes, labels, grids, frames)
    with pytest.raises(ValueError, match="must fit together.*for image 7"):
        Sample(image, (2, 2), boxes, labels[:0], grids, frames, image_id=7)
    with pytest.raises(ValueError, match="must fit together"):
        Sample(image, (2, 2), boxes, labels, grids[..., :3], frames)
    with pytest.raises(ValueError, match="must fit together"):
        Sample(image, (2, 2), boxes[:, :3], labels, grids, frames)
