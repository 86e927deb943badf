"""What a user can set for a report."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config import check


@dataclass(frozen=True)
class ReportConfig:
    """One report of a predictions table."""

    predictions_uri: str
    output_uri: str
    images_uri: str | None = None
    """The folder to find the images in; None: where the table says."""
    annotations_uri: str | None = None
    """The truth, a COCO JSON."""
    metrics_uri: str | None = None
    """The metrics.json of an evaluation."""
    training_uri: str | None = None
    """The OUTPUT of a training."""
    max_images: int = 10_000
    """In the gallery."""
    seed: int = 0
    """Of the choice of images, where there are more."""
    max_pixels: int = 100_000_000
    """Of a photo that is shown."""
    price_per_hour: float | None = None
    """Of the whole cluster."""
    more_pages: tuple[tuple[str, str], ...] = ()
    """(file name, label) of pages that somebody else writes into the site."""

    def __post_init__(self) -> None:
        check(self.max_images >= 1, "max_images", self.max_images, "1 or more")
        check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        if self.price_per_hour is not None:
            check(self.price_per_hour >= 0, "price_per_hour", self.price_per_hour, "0 or more")
