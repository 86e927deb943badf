"""Three lines of Python in a notebook: what is found shows itself on its image."""

from __future__ import annotations

import base64
import dataclasses
import gc
import io
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskrcnn
from maskrcnn.config import PreprocessConfig, SliceConfig
from maskrcnn.model.bundle import Category
from maskrcnn.model.decode import decode_image
from maskrcnn.model.detections import MOST_KEPT
from maskrcnn.model.mask_nms import MaskNmsPredictor
from maskrcnn.model.predictor import Predictor
from maskrcnn.model.slicing import SlicedPredictor


@pytest.fixture(scope="module")
def predictor(tiny_bundle: str) -> Predictor:
    return maskrcnn.Predictor.from_bundle(tiny_bundle, device="cpu")


def photo(width: int = 90, height: int = 60) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def shown_picture(text: str) -> Image.Image:
    found = re.search(r'src="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"', text)
    assert found is not None, text[:200]
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_a_files_detections_are_drawn_on_it(predictor: Predictor) -> None:
    (found,) = predictor([photo()])
    assert len(found) > 0
    assert re.fullmatch(r"Detections\(\d+ in 90 x 60 px: \d+ (can|box|bag).*\)", repr(found))
    picture = shown_picture(found._repr_html_())
    assert picture.size == (1024, 683)
    plain = Image.open(io.BytesIO(photo())).convert("RGB").resize(picture.size)
    assert np.abs(np.asarray(picture, int) - np.asarray(plain, int)).mean() > 1, "something is drawn"


def random_tensor() -> torch.Tensor:
    return torch.randint(0, 255, (3, 60, 90), dtype=torch.uint8)


def test_a_tensor_that_nobody_else_has_is_drawn_on(predictor: Predictor) -> None:
    (found,) = predictor([random_tensor()])
    gc.collect()
    assert shown_picture(found._repr_html_()).size == (1024, 683)
    forgetful = dataclasses.replace(found, shown=None)
    assert forgetful._repr_html_().startswith("<div>Detections(")


@pytest.mark.parametrize("image", [random_tensor(), photo()], ids=["tensor", "file"])
def test_results_of_many_images_keep_none_of_them_and_their_names(predictor: Predictor, image: Any) -> None:
    few, many = predictor([image] * MOST_KEPT), predictor([image] * (MOST_KEPT + 1))
    assert all("<img" in found._repr_html_() for found in few)
    assert not any("<img" in found._repr_html_() for found in many)
    assert repr(many[0]) == repr(few[0])


@pytest.mark.parametrize("image", [random_tensor(), photo()], ids=["tensor", "file"])
def test_results_are_pickled_with_their_names_and_without_their_image(predictor: Predictor, image: Any) -> None:
    (found,) = predictor([image])
    pickled = pickle.dumps(found)
    there = pickle.loads(pickled)
    assert repr(there) == repr(found)
    assert torch.equal(there.boxes, found.boxes)
    assert there.rles == found.rles
    assert "<img" not in there._repr_html_()
    assert "<img" in found._repr_html_(), "the image of the one that was pickled stays"


def test_a_tensor_that_became_something_else_is_told_in_words(predictor: Predictor) -> None:
    image = random_tensor()
    (found,) = predictor([image])
    image.resize_(0)
    assert found._repr_html_().startswith("<div>Detections(")


def test_what_a_job_labels_holds_no_image(predictor: Predictor) -> None:
    decoded = decode_image(photo(), PreprocessConfig())
    (found,) = predictor([decoded])  # type: ignore[list-item]
    assert found.shown is None


def test_boxes_alone_are_told_in_words(predictor: Predictor) -> None:
    (found,) = predictor([photo()], with_masks=False)
    assert "<img" not in found._repr_html_()


def test_refined_answers_are_shown_as_well(predictor: Predictor) -> None:
    for refined in (
        SlicedPredictor(predictor, SliceConfig(slice=64)),
        MaskNmsPredictor(predictor, 0.5, predictor.thresholds),
    ):
        (found,) = refined([photo()])
        assert shown_picture(found._repr_html_()).size == (1024, 683)


def test_names_are_text_and_no_markup(tiny_bundle: str) -> None:
    predictor = maskrcnn.Predictor.from_bundle(tiny_bundle, device="cpu")
    predictor.categories = tuple(Category(one.id, "<b>x</b>", one.label) for one in predictor.categories)
    (found,) = predictor([photo()])
    assert "<b>" not in found._repr_html_()
