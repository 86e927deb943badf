"""The table as a COCO dataset for pre-annotation, or as COCO results for scoring."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskrcnn import __version__
from maskrcnn.exports.json_stream import write_list, write_value
from maskrcnn.exports.rows import DetectionBatch, Exported
from maskrcnn.exports.segmentations import Overlaps, Segment, build_segments
from maskrcnn.exports.settings import ExportConfig
from maskrcnn.exports.survey import BATCH_SIZE

COLUMNS = ("image_uri", "width", "height")
SIDES = ("x", "y", "w", "h")


class CocoWriter:
    """Writes one export, a few images at a time.

    Args:
        exported: what of the table.
        config: the form of masks, and whether it is a sample.
        image_ids: (num_rows,) the COCO id of each row's image.
    """

    def __init__(self, exported: Exported, config: ExportConfig, image_ids: NDArray[np.int64]) -> None:
        self._exported, self._config, self._image_ids = exported, config, image_ids
        self.overlaps = Overlaps()
        self.num_without_masks = 0
        """Detections of which the table has no mask."""
        self.num_empty_masks = 0
        """Detections whose mask has no pixel: left out of datasets, where tools stumble over them."""

    def write_dataset(self, file: BinaryIO, categories: dict[int, str], root: str) -> int:
        """Write a COCO dataset: images in the order of their numbers, annotations in the table's.

        Args:
            file: where to.
            categories: name by id.
            root: what is cut off the front of each image's URI, its slash included.

        Returns:
            The number of annotations.
        """
        info = {
            "description": f"maskrcnn predictions of {self._exported.rows.uri}",
            "version": __version__,
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        listed = [{"id": one, "name": name, "supercategory": ""} for one, name in sorted(categories.items())]
        file.write(b'{"info":')
        write_value(file, info)
        file.write(b',\n"licenses":[],\n"categories":')
        write_value(file, listed)
        file.write(b',\n"images":')
        write_list(file, self._images(root))
        file.write(b',\n"annotations":')
        num_annotations = write_list(file, self._annotations())
        file.write(b"}\n")
        return num_annotations

    def write_results(self, file: BinaryIO) -> int:
        """Write COCO results in the table's order: its boxes, scores and masks as they are, counting them."""
        num_results = write_list(file, self._results())
        file.write(b"\n")
        return num_results

    def _images(self, root: str) -> Iterator[list[dict[str, Any]]]:
        batches = self._numbered_images(root)
        if self._config.sample is None:
            for batch in batches:
                yield [image for _, image in batch]
        else:
            drawn = sorted((pair for batch in batches for pair in batch), key=lambda pair: pair[0])
            yield [image for _, image in drawn]

    def _numbered_images(self, root: str) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        numbers = self._exported.survey.numbers
        for places, batch in self._exported.rows.batches(COLUMNS, is_wanted=numbers >= 0, batch_size=BATCH_SIZE):
            ids = self._image_ids[places].tolist()
            images = [
                {"id": image_id, "file_name": uri[len(root) :], "width": width, "height": height}
                for image_id, uri, width, height in zip(ids, *batch.to_pydict().values(), strict=True)
            ]
            yield list(zip(numbers[places].tolist(), images, strict=True))

    def _annotations(self) -> Iterator[list[dict[str, Any]]]:
        next_id = 1
        for batch in self._exported.detections(COLUMNS):
            segments, boxes = self._segments(batch), np.round(self._boxes(batch), 2).tolist()
            annotations = []
            for (image_id, category_id, score), segment, box in zip(self._common(batch), segments, boxes, strict=True):
                self.num_without_masks += segment is None
                if segment is not None and not segment.area:
                    self.num_empty_masks += 1
                    continue
                annotations.append(
                    {
                        "id": next_id,
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": segment.bbox if segment else box,
                        "area": segment.area if segment else round(box[2] * box[3], 2),
                        "iscrowd": 0,
                        "score": score,
                        "segmentation": segment.segmentation if segment else [],
                    }
                )
                next_id += 1
            yield annotations

    def _results(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self._exported.detections(COLUMNS):
            sizes = np.stack([batch.images[name].to_numpy() for name in ("height", "width")], axis=1)
            masks = batch.masks.to_pylist()
            results = []
            for (image_id, category_id, score), box, size, mask in zip(
                self._common(batch), self._boxes(batch).tolist(), sizes[batch.of_image].tolist(), masks, strict=True
            ):
                result = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
                if mask is not None:
                    result["segmentation"] = {"size": size, "counts": mask.decode("ascii")}
                results.append(result)
                self.num_without_masks += mask is None
            yield results

    def _common(self, batch: DetectionBatch) -> Iterator[tuple[int, int, float]]:
        image_ids = self._image_ids[batch.places][batch.of_image].tolist()
        return zip(image_ids, batch.column("category_id").to_pylist(), batch.numbers("score").tolist(), strict=True)

    def _boxes(self, batch: DetectionBatch) -> NDArray[np.float64]:
        return np.stack([batch.numbers(side) for side in SIDES], axis=1)

    def _segments(self, batch: DetectionBatch) -> list[Segment | None]:
        """Give one a detection, None where the table has no mask."""
        segments: list[Segment | None] = []
        bounds = np.searchsorted(batch.of_image, np.arange(len(batch.images) + 1)).tolist()
        for place, (uri, width, height) in enumerate(zip(*batch.images.to_pydict().values(), strict=True)):
            masks = batch.masks[bounds[place] : bounds[place + 1]]
            if masks.null_count:
                segments += [None] * len(masks)
                continue
            segments += build_segments(
                masks.to_pylist(),
                (height, width),
                self._config.segmentation,
                self._config.polygon_tolerance_px,
                self.overlaps,
                uri,
            )
        return segments
