"""A predictor over the images of a COCO file, as COCO results. Knows no scores."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from torchvision.ops import box_convert

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.file_names import safe_join
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.coco.results import CocoResults
from maskrcnn.errors import InputError, NotFoundError
from maskrcnn.images import BadImage
from maskrcnn.model.decode import DecodedImage, decode_image
from maskrcnn.model.predictor import AnyPredictor


def predict_dataset(
    predictor: AnyPredictor,
    dataset: CocoDataset,
    images_uri: str,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 2,
    with_masks: bool = True,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> CocoResults:
    """Predict every image of a dataset.

    Args:
        predictor: its category ids are the dataset's.
        dataset: the annotations.
        images_uri: the folder that the dataset's file names are relative to.
        indices: of the images to predict; None: all.
        batch_size: images a forward.
        with_masks: without, there are only boxes.
        on_progress: called now and then with the number of images done.

    Raises:
        InputError: an image that is missing, cannot be decoded, or is not of the size that the file says.
    """
    image_ids: list[int] = []
    found: dict[str, list[Any]] = {"category_ids": [], "scores": [], "bboxes": []}
    segmentations: list[Any] = []
    chosen = range(dataset.num_images) if indices is None else indices

    def load(index: int) -> DecodedImage:
        return _load_image(predictor, dataset, index, images_uri)

    with closing(_load_ahead(load, chosen, 2 * batch_size)) as loaded:
        for begin in range(0, len(chosen), batch_size):
            batch = chosen[begin : begin + batch_size]
            images = list(itertools.islice(loaded, len(batch)))
            for index, detections in zip(batch, predictor(images, with_masks=with_masks), strict=True):
                image_ids += [int(dataset.image_ids[index])] * len(detections)
                found["category_ids"].append(detections.category_ids.numpy())
                found["scores"].append(detections.scores.numpy())
                found["bboxes"].append(box_convert(detections.boxes, "xyxy", "xywh").numpy())
                segmentations += detections.rles
            on_progress(begin + len(batch))
    return CocoResults(
        place="the bundle's predictions",
        image_ids=np.array(image_ids, np.int64),
        category_ids=np.concatenate([np.zeros(0, np.int64), *found["category_ids"]]),
        scores=np.concatenate([np.zeros(0, np.float64), *found["scores"]]),
        bboxes=np.concatenate([np.zeros((0, 4), np.float64), *found["bboxes"]]),
        segmentations=SizedSegmentations.from_rles(segmentations) if with_masks else None,
    )


def _load_ahead(load: Callable[[int], DecodedImage], indices: Sequence[int], num_ahead: int) -> Generator[DecodedImage]:
    """Load images in order, the next ones while the caller works on those that it has."""
    with ThreadPoolExecutor(num_ahead, thread_name_prefix="load-image") as pool:
        waiting: deque[Future[DecodedImage]] = deque()
        try:
            for index in indices:
                waiting.append(pool.submit(load, index))
                if len(waiting) > num_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _load_image(predictor: AnyPredictor, dataset: CocoDataset, index: int, images_uri: str) -> DecodedImage:
    uri = safe_join(images_uri, dataset.file_names[index])
    thing = f"image {dataset.image_ids[index]} of {dataset.place}"
    try:
        body = storage.read_bytes(uri)
    except NotFoundError as error:
        raise InputError(thing, "is missing", uri, "is --images the folder of its file names?") from error
    image = decode_image(body, predictor.preprocess, whole_above_px=predictor.whole_above_px)
    if isinstance(image, BadImage):
        raise InputError(thing, f"cannot be decoded ({image.kind}): {image.reason}", uri)
    height, width = int(dataset.heights[index]), int(dataset.widths[index])
    if image.size != (height, width):
        rule = f"must be {width} x {height} px as annotated, and is {image.size[1]} x {image.size[0]}"
        raise InputError(thing, rule, uri)
    return image
