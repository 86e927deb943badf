"""The predictor gives torchvision's own detections, and the same for an image whatever its batch."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.coco.rle import to_mask
from maskrcnn.config import Heads, ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import BundleError, InputError
from maskrcnn.model.bundle import load_bundle, save_bundle
from maskrcnn.model.detections import Detections
from maskrcnn.model.network import build_network
from maskrcnn.model.predictor import Predictor
from maskrcnn.model.shapes import bucket_shape
from maskrcnn.model.weights import coco_categories
from maskrcnn.synthetic.shelf import draw_shelf
from tests.live_network import (
    CATEGORIES,
    PREPROCESS,
    build_small_network,
    noise,
    quick_networks,
    save_small_bundle,
)

SIZES = [(100, 150), (150, 100), (90, 90), (64, 96), (30, 200), (1, 1), (100, 150), (99, 149), (2, 300), (301, 203)]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_networks():
        yield


@pytest.fixture(scope="module")
def small_network() -> MaskRCNN:
    return build_small_network()


@pytest.fixture(scope="module")
def bundle_uri(small_network: MaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_bundle(tmp_path_factory.mktemp("bundle"), small_network)


@pytest.fixture(scope="module")
def predictor(bundle_uri: str) -> Predictor:
    return Predictor.from_bundle(bundle_uri, device="cpu")


def assert_same(ours: Detections, theirs: Detections) -> None:
    for name in ("boxes", "scores", "labels", "category_ids"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.rles == theirs.rles
    assert ours.size == theirs.size


def assert_best_scores_are_near(found: Detections, expected: Detections) -> None:
    """Compare what rounding, which a random network amplifies, cannot reorder."""
    assert len(expected) > 0
    torch.testing.assert_close(found.scores[:1], expected.scores[:1], rtol=0, atol=1e-2)


@pytest.mark.parametrize(("heads", "build_theirs"), [("v1", maskrcnn_resnet50_fpn), ("v2", maskrcnn_resnet50_fpn_v2)])
def test_torchvisions_own_detections(heads: Heads, build_theirs: type[MaskRCNN], tmp_path: Path) -> None:
    torch.manual_seed(0)
    preprocess = PreprocessConfig(min_size_px=192, max_size_px=320)
    # Not livened: that makes tenths of a pixel out of any rounding, torchvision's own on other threads included.
    theirs = build_theirs(
        weights=None,
        weights_backbone=None,
        min_size=preprocess.min_size_px,
        max_size=preprocess.max_size_px,
        box_score_thresh=0.3,
        box_nms_thresh=0.4,
        box_detections_per_img=20,
    ).eval()
    config, thresholds = ModelConfig(heads=heads, norm="batch"), ThresholdConfig(0.3, 0.4, max_detections=20)
    network = build_network(config, preprocess, thresholds)
    network.load_state_dict(theirs.state_dict())
    configs = {"model": config, "preprocess": preprocess, "thresholds": thresholds}
    save_bundle(str(tmp_path), network, **configs, categories=coco_categories(), provenance={})
    from_bundle = Predictor.from_bundle(str(tmp_path), device="cpu")
    wrapped = Predictor.from_torchvision(theirs, score_threshold=0.3, max_detections=20)
    ids = torch.tensor([category.id for category in coco_categories()])
    num_compared = 0
    for height, width in [(200, 300), (300, 200)]:
        image = torch.from_numpy(draw_shelf(height, width=width, height=height).image).permute(2, 0, 1)
        with torch.inference_mode():
            expected = theirs([image / 255])[0]
        assert_same_as_torchvision(wrapped([image])[0], expected, (height, width))
        named = torch.isin(expected["labels"], ids)
        expected = {name: values[named] for name, values in expected.items()}
        found = from_bundle([image])[0]
        assert_same_as_torchvision(found, expected, (height, width))
        num_compared += len(found)
    assert num_compared >= 20


def assert_same_as_torchvision(found: Detections, expected: dict[str, Tensor], size: tuple[int, int]) -> None:
    assert torch.equal(found.labels, expected["labels"])
    assert torch.equal(found.category_ids, expected["labels"])
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=0, atol=0.05)
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-4)
    for rle, mask in zip(found.rles, expected["masks"], strict=True):
        drawn = pycocotools.mask.decode(rle)
        assert drawn.shape == size
        differs = drawn != (mask[0] > 0.5).numpy()
        assert (np.abs(mask[0].numpy()[differs] - 0.5) < 1e-4).all()


def test_an_image_gives_the_same_whatever_its_batch(predictor: Predictor) -> None:
    images = [noise(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    together = predictor(images)
    assert sum(len(found) for found in together) > 40
    for found, image in zip(together, images, strict=True):
        assert found.size == tuple(image.shape[1:])
        assert_same(predictor([image])[0], found)
    for found, again in zip(together, predictor(images[::-1])[::-1], strict=True):
        assert_same(again, found)


def test_on_a_gpu_like_batch_only_rounding_depends_on_batch_mates(predictor: Predictor, bundle_uri: str) -> None:
    batched = Predictor.from_bundle(bundle_uri, device="cpu")
    batched._max_images_per_forward = 100
    shapes: list[tuple[int, ...]] = []
    batched._network._dense.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    images = [noise(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    for found, alone in zip(batched(images), predictor(images), strict=True):
        assert found.size == alone.size
        assert_best_scores_are_near(found, alone)
    buckets = {bucket_shape(height, width, PREPROCESS) for height, width in SIZES}
    assert len(shapes) == len(buckets) < len(SIZES)
    assert {shape[2:] for shape in shapes} == buckets


def test_results_are_sorted_clipped_and_named(predictor: Predictor) -> None:
    found = predictor([noise(100, 150)])[0]
    assert 5 <= len(found) <= 12
    assert len(found.rles) == len(found.boxes) == len(found.scores) == len(found.labels) == len(found.category_ids)
    assert (found.scores[:-1] >= found.scores[1:]).all()
    assert (found.scores > 0.05).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 0::2] <= 150).all()
    assert (found.boxes[:, 1::2] <= 100).all()
    assert set(found.labels.tolist()) <= {1, 2, 4, 5}
    assert torch.equal(found.category_ids, found.labels + 100)
    assert all(to_mask(rle).shape == (100, 150) for rle in found.rles)


def test_labels_without_a_category_are_never_reported(small_network: MaskRCNN, predictor: Predictor) -> None:
    everything = Predictor.from_torchvision(small_network, score_threshold=0.05, max_detections=12)
    images = [noise(100, 150, seed) for seed in range(3)]
    labels = torch.cat([found.labels for found in everything(images)])
    assert 3 in labels
    for whole, kept in zip(everything(images), predictor(images), strict=True):
        assert torch.equal(kept.labels, whole.labels[whole.labels != 3])
        assert torch.equal(kept.boxes, whole.boxes[whole.labels != 3])


def test_bytes_are_decoded(predictor: Predictor) -> None:
    image = noise(100, 150)
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    assert_same(predictor([file.getvalue()])[0], predictor([image])[0])
    with pytest.raises(InputError, match=r"image 1 cannot be decoded \(corrupt\)"):
        predictor([image, file.getvalue()[:200]])


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(3, 0, 8, dtype=torch.uint8), 7]
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Tensor) -> None:
    with pytest.raises(InputError, match="image 0 must"):
        predictor([image])


def test_no_images_give_no_detections(predictor: Predictor) -> None:
    assert predictor([]) == []


def test_nothing_found_is_a_result(bundle_uri: str) -> None:
    strict = Predictor.from_bundle(bundle_uri, device="cpu", thresholds=ThresholdConfig(score_threshold=1.0))
    (found,) = strict([noise(40, 50)])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.rles == []


def test_thresholds_may_be_other_than_the_bundles(predictor: Predictor, bundle_uri: str) -> None:
    image = noise(100, 150)
    strict = Predictor.from_bundle(bundle_uri, device="cpu", thresholds=ThresholdConfig(0.5, max_detections=3))
    found, more = strict([image])[0], predictor([image])[0]
    assert len(found) == 3
    assert torch.equal(found.scores, more.scores[:3])
    assert strict.thresholds.score_threshold == 0.5
    assert predictor.thresholds.score_threshold == 0.05


def test_without_masks_the_mask_head_does_not_run(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, small_network: MaskRCNN
) -> None:
    image = noise(100, 150)
    with_masks = predictor([image])[0]
    monkeypatch.setattr(predictor._network, "predict_masks", lambda *_: pytest.fail("the mask head ran"))
    found = predictor([image], with_masks=False)[0]
    assert found.rles == []
    assert torch.equal(found.boxes, with_masks.boxes)
    assert torch.equal(found.scores, with_masks.scores)


def test_a_wrapped_model_keeps_its_own_thresholds(small_network: MaskRCNN) -> None:
    before = (small_network.roi_heads.score_thresh, small_network.roi_heads.detections_per_img)
    wrapped = Predictor.from_torchvision(small_network, score_threshold=0.4, max_detections=2)
    wrapped([noise(40, 50)], with_masks=False)
    assert (small_network.roi_heads.score_thresh, small_network.roi_heads.detections_per_img) == before
    assert small_network.roi_heads.has_mask()
    assert "masks" in small_network([noise(40, 50) / 255])[0]
    assert (wrapped.categories, wrapped.bundle_sha256) == ((), "")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a model bundle"):
        Predictor.from_bundle(str(tmp_path), device="cpu")


def test_the_job_can_ask_for_its_settings(predictor: Predictor, bundle_uri: str) -> None:
    assert predictor.categories == CATEGORIES
    assert predictor.bundle_sha256 == load_bundle(bundle_uri).sha256
    assert predictor.preprocess == PREPROCESS
    assert predictor.device == torch.device("cpu")


def test_detections_of_unequal_length_are_refused() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    with pytest.raises(ValueError, match="must be of one length"):
        Detections((4, 4), torch.zeros(2, 4), two, one.long(), two.long())
    with pytest.raises(ValueError, match="must be of one length"):
        Detections((4, 4), torch.zeros(1, 4), one, one.long(), one.long(), [{"size": [4, 4], "counts": b"`0"}] * 2)


@pytest.mark.gpu
def test_on_cuda_as_on_the_cpu(bundle_uri: str, predictor: Predictor) -> None:
    images = [noise(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    on_cuda = Predictor.from_bundle(bundle_uri, device="cuda", precision="fp32")
    for found, expected in zip(on_cuda(images), predictor(images), strict=True):
        assert found.scores.device.type == "cpu"
        assert len(found.rles) == len(found)
        assert_best_scores_are_near(found, expected)


def test_a_network_that_gives_no_numbers_finds_nothing(small_network: MaskRCNN) -> None:
    broken = copy.deepcopy(small_network)
    torch.nn.init.constant_(broken.rpn.head.bbox_pred.weight, torch.nan)
    found = Predictor.from_torchvision(broken)([noise(100, 150)])[0]
    assert (len(found), found.rles) == (0, [])
