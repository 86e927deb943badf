"""How far training images wander from their files: the settings alone, which need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config import check


@dataclass(frozen=True)
class AugmentConfig:
    """How far training images wander from their files."""

    flip_probability: float = 0.5
    """Of a mirror image, left to right."""
    color_jitter: float = 0.1
    """Brightness, contrast and saturation are each multiplied by up to 1 +- this; 0 leaves the colours alone."""
    short_sides_px: tuple[int, ...] = ()
    """Multi-scale: the shorter side becomes one of these; none: --min-size."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Large-scale jitter: the image is scaled by a factor between these, then cropped or padded to --crop-size."""
    crop_size_px: int = 0
    """Large-scale jitter: side of the square; 0 for none."""

    def __post_init__(self) -> None:
        check(0 <= self.flip_probability <= 1, "flip_probability", self.flip_probability, "in [0, 1]")
        check(0 <= self.color_jitter < 1, "color_jitter", self.color_jitter, "in [0, 1)")
        sides = self.short_sides_px
        check(all(side >= 32 for side in sides), "short_sides", sides, "32 px or more each")
        low, high = self.scale_jitter
        check(0 < low <= high <= 10, "scale_jitter", f"{low},{high}", "LOW,HIGH with 0 < LOW <= HIGH <= 10")
        is_stride = self.crop_size_px >= 0 and self.crop_size_px % 32 == 0
        check(is_stride, "crop_size", self.crop_size_px, "a multiple of 32, or 0")
        has_crop = self.crop_size_px > 0 or self.scale_jitter == (1.0, 1.0)
        check(has_crop, "crop_size", self.crop_size_px, "above 0 with --scale-jitter")
