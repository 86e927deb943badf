"""Build a report of 10,000 images, open it in Chromium, and show how soon it is there and what memory it takes.

The table is made up: generated masks over a few photos that every row shares. Measured are the build, the time from
asking for the gallery until the small pictures of its first page are drawn, a turn of the page, a move of the score
slider, and the memory: the JavaScript heap, the whole browser's PSS (what processes share is counted once), and what it
had before the page. Ends 1 where the first page takes 2 s or more, or the report adds 500 MB or more to the browser.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from export import write_table
from machine import peak_rss_bytes, process_tree, pss_bytes, write_results
from PIL import Image

from maskrcnn.report.job import write_report
from maskrcnn.report.settings import ReportConfig

SIZE = (480, 640)
NUM_PHOTOS = 12
DETECTIONS_PER_IMAGE = 20
PAGE = 48
NUM_TURNS = 20
VIEWPORT = {"width": 1280, "height": 1600}
"""So tall that all small pictures of a page are within the browser's reach: it loads none that lie far below."""
MOST_FIRST_PAGE_S = 2.0
MOST_PAGE_BYTES = 500_000_000
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--enable-precise-memory-info",
)
HAS_DRAWN = """count => {
  const tiles = [...document.querySelectorAll('.tile')];
  return tiles.length === count && tiles.every((tile) => {
    const image = tile.querySelector('img');
    return tile.dataset.drawn && (!image || (image.complete && image.naturalWidth > 0));
  });
}"""
SLIDE = """score => new Promise((resolve) => {
  const input = document.getElementById('score');
  const begin = performance.now();
  input.value = score;
  input.dispatchEvent(new Event('input', { bubbles: true }));
  requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - begin)));
})"""


def draw_photos(folder: Path, rng: np.random.Generator) -> list[str]:
    """Draw a few JPEGs, and give their paths."""
    paths = []
    for number in range(NUM_PHOTOS):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        path = folder / f"photo-{number:02d}.jpg"
        Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path, quality=85)
        paths.append(str(path))
    return paths


def write_labels(folder: Path, num_images: int) -> None:
    """Leave what a labelling job leaves: every image has a name of its own, and shares its photo with many."""
    photos = draw_photos(folder, np.random.default_rng(0))

    def link(number: int) -> str:
        path = folder / f"images-{number // 1000:03d}" / f"image-{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        os.link(photos[number % NUM_PHOTOS], path)
        return str(path)

    write_table(folder / "labels", num_images, detections_per_image=DETECTIONS_PER_IMAGE, size=SIZE, name_of=link)


def browser_bytes(root_pid: int) -> int:
    """Give the PSS of a process and all that it started."""
    return sum(pss_bytes(pid) for pid in process_tree(root_pid))


def measure_browser(site: Path, num_images: int) -> dict[str, Any]:
    """Open the gallery, turn pages and slide."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on the path: apt-get install chromium")
    first_page = min(PAGE, num_images)
    with sync_playwright() as driver:
        before = set(process_tree(os.getpid()))
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport=VIEWPORT)
        page.goto("about:blank")
        started = [pid for pid, words in process_tree(os.getpid()).items() if pid not in before and "chromium" in words]
        root_pid = min(started)
        empty_bytes = browser_bytes(root_pid)
        begin = time.perf_counter()
        page.goto(f"file://{site}/gallery.html", wait_until="commit")
        page.wait_for_function(HAS_DRAWN, arg=first_page)
        first_page_s = time.perf_counter() - begin
        peak_bytes = browser_bytes(root_pid)
        turns_s = []
        for _ in range(min(NUM_TURNS, num_images // PAGE - 1)):  # to whole pages
            begin = time.perf_counter()
            page.keyboard.press("PageDown")
            page.wait_for_function(HAS_DRAWN, arg=first_page)
            turns_s.append(time.perf_counter() - begin)
            peak_bytes = max(peak_bytes, browser_bytes(root_pid))
        slides_s = []
        for score in np.linspace(0.5, 0.95, 20).round(2).tolist():
            slides_s.append(page.evaluate(SLIDE, score) / 1000)
            peak_bytes = max(peak_bytes, browser_bytes(root_pid))
        heap_bytes = page.evaluate("performance.memory.usedJSHeapSize")
        browser.close()
    return {
        "first_page_s": round(first_page_s, 3),
        "turn_s": [round(each, 3) for each in turns_s],
        "slide_s": [round(each, 3) for each in slides_s],
        "empty_browser_bytes": empty_bytes,
        "browser_bytes": peak_bytes,
        "page_bytes": peak_bytes - empty_bytes,
        "heap_bytes": heap_bytes,
    }


def main() -> int:
    """Build, open and measure; 0 when the promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="500 images")
    parser.add_argument("--images", type=int, default=10_000, help="how many images (default: 10000)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    num_images = 500 if arguments.small else arguments.images

    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        write_labels(Path(folder), num_images)
        site = Path(folder) / "site"
        begin = time.perf_counter()
        written = write_report(ReportConfig(str(Path(folder) / "labels"), str(site), max_images=num_images))
        build_s = time.perf_counter() - begin
        if (written.num_shown, written.num_without_picture) != (num_images, 0):
            raise SystemExit(
                f"{written.num_shown} of {num_images} images are shown, {written.num_without_picture} bare"
            )
        files = [path.stat().st_size for path in site.rglob("*") if path.is_file()]
        index_bytes = (site / "gallery" / "index.js").stat().st_size
        figures = measure_browser(site, num_images)
    row = {
        "num_images": num_images,
        "num_detections": num_images * DETECTIONS_PER_IMAGE,
        "build_s": round(build_s, 1),
        "build_images_per_s": round(num_images / build_s, 1),
        "build_peak_rss_bytes": peak_rss_bytes(),
        "site_files": len(files),
        "site_bytes": sum(files),
        "index_bytes": index_bytes,
        **figures,
    }
    keeps = figures["first_page_s"] < MOST_FIRST_PAGE_S and figures["page_bytes"] < MOST_PAGE_BYTES
    print(
        f"{num_images:,} images: built in {build_s:.0f} s ({row['build_images_per_s']:.0f}/s), first page in "
        f"{figures['first_page_s']:.2f} s, a turn {statistics.median(figures['turn_s']):.2f} s, a slide "
        f"{statistics.median(figures['slide_s']):.3f} s\nbrowser {figures['browser_bytes'] / 1e6:.0f} MB, "
        f"{figures['page_bytes'] / 1e6:.0f} MB more than empty; heap {figures['heap_bytes'] / 1e6:.0f} MB: "
        f"{'kept' if keeps else 'NOT kept'}"
    )
    if arguments.output:
        settings = {"image_px": SIZE, "detections_per_image": DETECTIONS_PER_IMAGE}
        write_results(arguments.output, "report", {**settings, "rows": [row]}, load_before)
    return 0 if keeps else 1


if __name__ == "__main__":
    sys.exit(main())
