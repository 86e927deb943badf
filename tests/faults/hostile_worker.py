"""A process that labels hostile images, as an actor does: run as ``python -m tests.faults.hostile_worker NUMBER``.

Prints a JSON line: what became of them, how long the slowest took, how far the memory grew in the end and in between,
and how far it grew for those that are refused for their size.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn import images, storage
from maskrcnn.config import PreprocessConfig, ThresholdConfig
from maskrcnn.errors import ERROR_KINDS
from maskrcnn.images import BadImage
from maskrcnn.labelling.labeller import Labeller
from maskrcnn.labelling.results import ListedImage
from maskrcnn.model.bundle import Category
from maskrcnn.model.decode import DecodedImage, to_decoded
from maskrcnn.model.detections import Detections
from tests.hostile_images import SOUND, hostile_image

AT_ONCE = 100
CAP_PX = 100_000_000


class FindsNothing:
    """A predictor that is not on trial."""

    whole_above_px: int | None = None
    is_on_gpu = False
    bundle_sha256 = "none"
    categories: tuple[Category, ...] = ()
    preprocess = PreprocessConfig(min_size_px=64, max_size_px=64)
    thresholds = ThresholdConfig()

    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        nothing, none = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        decoded = [to_decoded(image, "an image", self.preprocess) for image in images]
        return [Detections(image.size, torch.zeros(0, 4), nothing, none, none) for image in decoded]


def main() -> None:
    num_images = int(sys.argv[1])
    labeller = Labeller(FindsNothing(), batch_size=2, num_decoders=2, with_masks=True, max_pixels=CAP_PX)
    rows: Counter[str] = Counter()
    slowest_s = too_large_mb = 0.0
    with tempfile.TemporaryDirectory() as folder:
        _label(labeller, [*SOUND.values()] * 4, Path(folder))  # every decoder is loaded, every pool is warm
        before_mb = _memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        for first in range(0, num_images, AT_ONCE):
            bodies = [hostile_image(number) for number in range(first, min(first + AT_ONCE, num_images))]
            for body in bodies:
                peak_mb, begin = _memory_mb("VmHWM"), time.monotonic()
                if _check(body) == "too_large":
                    too_large_mb = max(too_large_mb, _memory_mb("VmHWM") - peak_mb)
                slowest_s = max(slowest_s, time.monotonic() - begin)
            rows.update(_label(labeller, bodies, Path(folder)))
    seen = {
        "rows": rows,
        "slowest_s": round(slowest_s, 3),
        "grown_mb": round(_memory_mb("VmRSS") - before_mb, 1),
        "peak_mb": round(_memory_mb("VmHWM") - before_mb, 1),
        "too_large_mb": round(too_large_mb, 1),
    }
    sys.stdout.write(json.dumps(seen))


def _check(body: bytes) -> str:
    """Read and decode one file, and say what became of it."""
    header = images.read_header(body, max_pixels=CAP_PX)
    answer = images.decode(body, max_pixels=CAP_PX)
    if not isinstance(answer, BadImage):
        assert not isinstance(header, BadImage)
        assert answer.shape == (header.height, header.width, 3)
        return "ok"
    assert answer.kind in ERROR_KINDS
    assert answer.reason.isprintable(), answer.reason
    return answer.kind


def _memory_mb(what: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024 / 1e6


def _label(labeller: Labeller, bodies: list[bytes], folder: Path) -> list[str]:
    listed = []
    for place, body in enumerate(bodies):
        path = folder / f"{place:03d}"
        path.write_bytes(body)
        meta = storage.stat(str(path))
        listed.append(ListedImage(meta.uri, meta.etag, meta.size))
    results = labeller.label(listed)
    assert len(results) == len(bodies)
    return [result.error_kind or "ok" for result in results]


if __name__ == "__main__":
    main()
