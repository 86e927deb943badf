"""Time encoding instance masks inside their boxes against pasting and encoding whole frames, side by side.

One thread, the median of several runs. On a CPU both must give the same RLEs, or the script ends 1. On a GPU edges are
found there, and a pixel may differ where its value is within rounding of the threshold: one mask in a hundred may.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from machine import describe_device, write_results
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.model.masks import encode_instance_masks
from maskrcnn.model.precision import resolve_device

MASK_SIDE = 28
THRESHOLD = 0.5
LEAST_EQUAL_ON_GPU = 0.99


def draw_instances(num_instances: int, height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw blobs with uneven outlines in boxes of mixed sizes, as a mask head gives them.

    Returns:
        mask_probs (N, 1, 28, 28) float32 and boxes (N, 4) float32, XYXY px, cut to the image.
    """
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, MASK_SIDE)
    radius = ramp**2 + ramp[:, None] ** 2
    noise = torch.randn(num_instances, 1, MASK_SIDE, MASK_SIDE, generator=generator)
    probs = torch.sigmoid(8 * (0.8 - radius) + 1.2 * noise)
    centres = torch.rand(num_instances, 2, generator=generator) * torch.tensor([width, height])
    sides = 32 * (min(height, width) * 0.4 / 32) ** torch.rand(num_instances, 2, generator=generator)
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    return probs, boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))


def paste_and_encode(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Any]:
    """Encode through full frames: torchvision's paste, a threshold, pycocotools' encode."""
    frames = paste_masks_in_image(probs, boxes, size)[:, 0] > THRESHOLD
    return [pycocotools.mask.encode(np.asfortranarray(frame.cpu().numpy().view(np.uint8))) for frame in frames]


def median_seconds(run: Callable[[], object], num_runs: int) -> float:
    """Time a call several times, after one that is not counted; each ends with RLEs on the host."""
    run()
    seconds = []
    for _ in range(num_runs):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def measure(num_instances: int, height: int, width: int, num_runs: int, device: torch.device) -> dict[str, Any]:
    """Time both ways on the same instances; boxes are on the host, as they are when masks are encoded."""
    size = (height, width)
    probs, boxes = draw_instances(num_instances, height, width, seed=num_instances)
    probs, boxes_there = probs.to(device), boxes.to(device)
    ours, theirs = encode_instance_masks(probs, boxes, size, THRESHOLD), paste_and_encode(probs, boxes_there, size)
    num_equal = sum(one == other for one, other in zip(ours, theirs, strict=True))
    ours_s = median_seconds(lambda: encode_instance_masks(probs, boxes, size, THRESHOLD), 5 * num_runs)
    theirs_s = median_seconds(lambda: paste_and_encode(probs, boxes_there, size), num_runs)
    sides = boxes[:, 2:] - boxes[:, :2]
    return {
        "num_instances": num_instances,
        "height_px": height,
        "width_px": width,
        "mean_box_area_px": round(sides.prod(1).mean().item()),
        "ours_s": ours_s,
        "masks_per_s": num_instances / ours_s,
        "paste_and_encode_s": theirs_s,
        "ratio": theirs_s / ours_s,
        "num_equal": num_equal,
        "is_equal": num_equal >= num_instances * (1 if device.type == "cpu" else LEAST_EQUAL_ON_GPU),
        "num_runs": num_runs,
    }


def main() -> int:
    """Run the table; 0 when every RLE was equal, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="two rows and one run of paste and encode: seconds instead of a minute"
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="timed runs of paste and encode; five times as many of ours"
    )
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs must be 1 or more, got {arguments.runs}")
    torch.set_num_threads(1)
    load_before, device = os.getloadavg()[0], resolve_device("auto")

    full = [(1, 1080, 1920), (20, 1080, 1920), (100, 1080, 1920), (300, 1080, 1440), (800, 1080, 1440)]
    small = [(20, 540, 960), (100, 1080, 1920)]
    rows = []
    print(
        f"{'N':>4} {'image':>11} {'box area px':>11} {'ours s':>9} {'masks/s':>9} {'paste+encode s':>14} "
        f"{'ratio':>6} equal"
    )
    for num_instances, height, width in small if arguments.small else full:
        row = measure(num_instances, height, width, 1 if arguments.small else arguments.runs, device)
        rows.append(row)
        print(
            f"{num_instances:>4} {f'{height}x{width}':>11} {row['mean_box_area_px']:>11} {row['ours_s']:>9.4f} "
            f"{row['masks_per_s']:>9,.0f} {row['paste_and_encode_s']:>14.3f} {row['ratio']:>5.0f}x "
            f"{row['num_equal']:>5}"
        )
    if arguments.output:
        write_results(arguments.output, "masks", {"device": describe_device(device), "rows": rows}, load_before)
    return 0 if all(row["is_equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
