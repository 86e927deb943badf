"""What a user can set, as frozen dataclasses that refuse what cannot work. Knows nothing but the standard library."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, TypeVar

from maskrcnn.errors import InputError

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
Heads = Literal["v1", "v2"]
Norm = Literal["frozen", "batch"]
Precision = Literal["auto", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
MasksKept = Literal["full", "none"]
OverlapMetric = Literal["iou", "iomin"]
PieceHandling = Literal["nms", "merge"]

BACKBONES: tuple[Backbone, ...] = ("resnet18", "resnet34", "resnet50", "resnet101")
DECODE_SCALES = (1, 2, 4, 8)
"""JPEGs can be decoded at 1/each of these of their size."""
MIN_SLICE_PX = 64
MAX_SIDE_PX = 1 << 14
"""Of the network's input: a bundle from elsewhere must not ask for memory that nobody has."""
BOX_NMS_BEFORE_MASK_NMS = 0.8
"""Where masks tell what is one object, boxes only drop what is nearly the same box."""

_Config = TypeVar("_Config")


class UnusualValueWarning(UserWarning):
    """A value that works, but lies outside the range that people use."""


def flag(field_name: str) -> str:
    """Name a field as the command line does: ``score_threshold`` is ``--score-threshold``."""
    return "--" + field_name.replace("_", "-")


def check(is_good: bool, field_name: str, value: object, rule: str) -> None:
    """Refuse a value that cannot work.

    Raises:
        InputError: naming the flag, the rule and the value, when ``is_good`` is false.
    """
    if not is_good:
        raise InputError(flag(field_name), f"must be {rule}, got {value}")


def check_choice(field_name: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is not one of ``choices``.

    Raises:
        InputError: naming the flag, the choices and the value.
    """
    check(value in choices, field_name, value, "one of " + ", ".join(map(str, choices)))


def warn_if_unusual(is_usual: bool, field_name: str, value: object, usual: str) -> None:
    """Warn in one line of a value outside the usual range; it is used all the same."""
    if not is_usual:
        warnings.warn(f"{flag(field_name)} is usually {usual}, got {value}", UnusualValueWarning, stacklevel=4)


def config_from_dict(cls: type[_Config], values: dict[str, Any]) -> _Config:
    """Build a config dataclass from parsed JSON, lists becoming tuples; unknown keys are ignored."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: frozen(value) for name, value in values.items() if name in known})


@dataclass(frozen=True)
class ModelConfig:
    """The network's shape: everything needed to build it before weights are loaded."""

    backbone: Backbone = "resnet50"
    """ResNet under the feature pyramid; resnet50 for speed, resnet101 for accuracy, 18 and 34 for small machines."""
    heads: Heads = "v1"
    """torchvision's two recipes: v1 as in the paper, v2 with deeper convolutional heads and batch norms."""
    num_labels: int = 91
    """Classes of the predictors, background included."""
    norm: Norm = "frozen"
    """Batch norms of the backbone: frozen (fine-tuning, small batches) or trained (from scratch)."""
    anchor_sizes_px: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    """Anchor sides for each of the five pyramid levels, px of the network's input."""
    anchor_aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    max_proposals: int = 1000
    """Regions an image that the box head looks at when predicting; a small picture needs far fewer than torchvision's
    1000, and the box head is most of the work there."""

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("heads", self.heads, ("v1", "v2"))
        check_choice("norm", self.norm, ("frozen", "batch"))
        check(self.num_labels >= 2, "num_labels", self.num_labels, "2 or more (background and one category)")
        check(
            len(self.anchor_sizes_px) == 5,
            "anchor_sizes_px",
            self.anchor_sizes_px,
            "five tuples, one a level",
        )
        check(self.max_proposals >= 1, "max_proposals", self.max_proposals, "1 or more")


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image becomes the network's input; depends on that image alone, never on its batch."""

    min_size_px: int = 800
    """The shorter side is resized to this, px."""
    max_size_px: int = 1333
    """... unless the longer side would exceed this, px."""
    pad_multiple_px: int = 32
    """Shape buckets: height and width are padded up to multiples of this, px."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of RGB in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    apply_exif: bool = True
    """Turn images as their EXIF orientation says, before anything else."""
    decode_scale: int = 1
    """JPEGs may be decoded at down to 1/this of their size, never below what they are resized to: 1, 2, 4 or 8."""

    def __post_init__(self) -> None:
        check(self.min_size_px >= 32, "min_size", self.min_size_px, "32 px or more")
        check(self.max_size_px >= self.min_size_px, "max_size", self.max_size_px, "at least --min-size")
        check(self.max_size_px <= MAX_SIDE_PX, "max_size", self.max_size_px, f"{MAX_SIDE_PX} px or less")
        is_stride = self.pad_multiple_px > 0 and self.pad_multiple_px % 32 == 0
        check(is_stride, "pad_multiple", self.pad_multiple_px, "a multiple of 32, the network's stride")
        check(self.pad_multiple_px <= MAX_SIDE_PX, "pad_multiple", self.pad_multiple_px, f"{MAX_SIDE_PX} px or less")
        check_choice("decode_scale", self.decode_scale, DECODE_SCALES)


@dataclass(frozen=True)
class ThresholdConfig:
    """Which of the network's answers are kept."""

    score_threshold: float = 0.5
    nms_threshold: float = 0.5
    """Boxes of one category that overlap more than this (IoU) are one object."""
    max_detections: int = 300
    """In an image; shelves and cells have more than COCO's 100."""

    def __post_init__(self) -> None:
        check(0 <= self.score_threshold <= 1, "score_threshold", self.score_threshold, "in [0, 1]")
        check(0 < self.nms_threshold <= 1, "nms_threshold", self.nms_threshold, "in (0, 1]")
        check(self.max_detections >= 1, "max_detections", self.max_detections, "1 or more")


@dataclass(frozen=True)
class SliceConfig:
    """How a large image is labelled in overlapping tiles, and as a whole too, and what they saw is put together."""

    slice: int
    """Side of a tile, px of the image; an image no larger than this is not sliced."""
    slice_overlap: float = 0.2
    """Of two neighbours, in tiles' sides: what is smaller than this is whole in one tile at least."""
    slice_merge: PieceHandling = "nms"
    """Objects that tiles' edges cut: nms keeps the best piece where nobody saw the whole, merge unites the pieces."""
    slice_metric: OverlapMetric = "iomin"
    """Of two detections: iou, or what they share of the smaller one."""
    slice_threshold: float = 0.5
    """Detections of one category that overlap more than this are one object, of two tiles or of one."""

    def __post_init__(self) -> None:
        check(self.slice >= MIN_SLICE_PX, "slice", self.slice, f"{MIN_SLICE_PX} px or more")
        check(0 <= self.slice_overlap < 0.9, "slice_overlap", self.slice_overlap, "in [0, 0.9)")
        check_choice("slice_merge", self.slice_merge, ("nms", "merge"))
        check_choice("slice_metric", self.slice_metric, ("iou", "iomin"))
        check(0 < self.slice_threshold < 1, "slice_threshold", self.slice_threshold, "in (0, 1)")


def check_mask_nms(mask_nms: float | None, *, has_masks: bool = True) -> None:
    """Refuse a threshold of mask NMS that cannot work, or one where there are no masks.

    Raises:
        InputError: naming the flag and the rule.
    """
    if mask_nms is None:
        return
    check(0 < mask_nms <= 1, "mask_nms", mask_nms, "in (0, 1]")
    if not has_masks:
        raise InputError("--mask-nms", "needs masks", remedy="leave out --masks none")


def to_json_dict(config: Any) -> dict[str, Any]:
    """Give a config dataclass as plain JSON types."""
    return asdict(config)


@dataclass(frozen=True)
class LabelConfig:
    """One run of the labelling job."""

    bundle_uri: str
    images_uri: str
    output_uri: str
    image_root_uri: str | None = None
    """Where the images of a COCO JSON lie."""
    score_threshold: float | None = None
    """None: the bundle's; so for the two that follow."""
    nms_threshold: float | None = None
    max_detections: int | None = None
    mask_nms: float | None = None
    """Masks of one category that overlap more than this (IoU) are one object; None: boxes tell."""
    slicing: SliceConfig | None = None
    """Label large images in tiles; None: only as a whole."""
    batch_size: int = 2
    """Images, or tiles, a forward."""
    num_actors: tuple[int, int] | None = None
    """The fewest and the most actors; None: as many as the cluster has room for."""
    device: Device = "auto"
    precision: Precision = "auto"
    rows_per_part: int | None = None
    """Images in one output file; None: 2048 on GPUs, 256 on CPUs."""
    date_from: str | None = None
    """last-modified, a column of the manifest, or a regular expression with one group over the image's URI."""
    retry_errors: bool = False
    sample: float | None = None
    """Label only this share of the images, drawn by their URIs, in (0, 1]; None: all."""
    seed: int = 0
    """Of the sample."""
    masks: MasksKept = "full"
    max_pixels: int = 100_000_000
    """Larger images are refused from their header."""
    price_per_hour: float | None = None
    """Of the whole cluster, for the cost in the run record."""
    finish_by: datetime | None = None
    """When all should be labelled, with its time zone."""
    forecast_from_uri: str | None = None
    """The record of the run from which to forecast; None: OUTPUT's newest like this one."""

    def __post_init__(self) -> None:
        for name in ("bundle_uri", "images_uri", "output_uri"):
            check(bool(getattr(self, name)), name.removesuffix("_uri"), "nothing", "a path or URI")
        if self.score_threshold is not None:
            check(0 <= self.score_threshold <= 1, "score_threshold", self.score_threshold, "in [0, 1]")
        if self.nms_threshold is not None:
            check(0 < self.nms_threshold <= 1, "nms_threshold", self.nms_threshold, "in (0, 1]")
        if self.max_detections is not None:
            check(self.max_detections >= 1, "max_detections", self.max_detections, "1 or more")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        if self.num_actors is not None:
            low, high = self.num_actors
            check(1 <= low <= high, "num_actors", f"{low},{high}", "MIN[,MAX] with 1 <= MIN <= MAX")
        if self.rows_per_part is not None:
            check(1 <= self.rows_per_part <= 1_000_000, "rows_per_part", self.rows_per_part, "in 1..1000000")
        if self.sample is not None:
            check(0 < self.sample <= 1, "sample", self.sample, "in (0, 1]: a share of the images")
        check(0 <= self.seed < 2**63, "seed", self.seed, "0 or more, and less than 2**63")
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check_choice("masks", self.masks, ("full", "none"))
        check_mask_nms(self.mask_nms, has_masks=self.masks == "full")
        check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")
