"""The options of slicing, for every command that predicts with a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from maskrcnn.config import SliceConfig
from maskrcnn.errors import InputError


@dataclass(frozen=True)
class SliceArguments:
    """Small objects in large photos: label overlapping tiles, and the whole image too."""

    slice: int | None = None
    """Side of the tiles, px of the image, 64 or more; default: no tiles. Images no larger are labelled as without. A
    tile is resized as the bundle resizes an image: take a side that shows objects as large as in training. Costs one
    forward more for each tile (about 40 for 6000x4000 px and 1024); raise --max-detections, which holds for the whole
    image, if it may have more objects than the bundle's."""
    slice_overlap: float | None = None
    """Of neighbouring tiles, in tiles' sides, in [0, 0.9); default 0.2. Objects up to this size are whole in some
    tile; larger ones come from the whole image."""
    slice_merge: Literal["nms", "merge"] | None = None
    """Objects that no tile and not the whole image show whole; nms (default): the best piece stands for them, merge:
    overlapping pieces are united."""
    slice_metric: Literal["iou", "iomin"] | None = None
    """How much two detections overlap, by masks, or boxes with --masks none; iomin (default): of the smaller one, so
    that pieces are found, and what lies inside another object of its category goes too; iou: of both together."""
    slice_threshold: float | None = None
    """Detections of one category that overlap more are one object, whether two tiles show them or one, in (0, 1);
    default 0.5."""

    def to_config(self) -> SliceConfig | None:
        """Check the values; None: no slicing.

        Raises:
            InputError: a value that cannot work, or one that means nothing without --slice.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if given and "slice" not in given:
            raise InputError("--" + next(iter(given)).replace("_", "-"), "needs --slice, which is not given")
        return SliceConfig(**given) if given else None
