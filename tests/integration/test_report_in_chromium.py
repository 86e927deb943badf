"""The report in a real browser, from files: what a person would click and type, and a console that stays empty."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.scoreboard import to_json
from maskrcnn.labelling.coco_results import load_table_results
from maskrcnn.report.job import write_report
from maskrcnn.report.settings import ReportConfig
from tests.browser import Browser
from tests.reported import HOSTILE_CATEGORY, HOSTILE_NAME, HOSTILE_REASON, NUM_IMAGES, write_labelled

PAGES = ("index", "gallery", "scores", "training")
# Of images 0 to 58, by n % 4: 0, 1, 2, 3 detections.
NUM_FOUND = sum(number % 4 for number in range(59))
NUM_CANS_AT_90 = sum(number % 4 > 0 for number in range(59))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    table, truth = write_labelled(folder)
    dataset = load_coco(truth)
    metrics = evaluate(dataset, load_table_results(table, dataset).results, with_analysis=True)
    (folder / "metrics.json").write_bytes(to_json(metrics))
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 1.0, "losses": {"loss_mask": 1.0}, "learning_rate": 0.1} for step in range(5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = ReportConfig(
        table,
        str(folder / "site"),
        annotations_uri=truth,
        metrics_uri=str(folder / "metrics.json"),
        training_uri=str(folder),
        price_per_hour=2.0,
    )
    write_report(config)
    return f"file://{folder}/site"


def wait_for(page: Any, text: str) -> None:
    page.wait_for_function("text => document.getElementById('status').textContent === text", arg=text)


def slide(page: Any, score: float) -> None:
    page.locator("#score").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }", score
    )


def names(page: Any) -> list[str]:
    found: list[str] = page.locator(".tile .name").all_text_contents()
    return found


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_every_page_opens_without_complaint_and_without_overflow(
    chromium: Browser, site: str, width: int, theme: str
) -> None:
    for name in PAGES:
        with chromium.page(f"{site}/{name}.html", width=width, theme=theme) as page:
            if name == "gallery":
                page.wait_for_selector(".tile[data-drawn]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert paper == ("rgb(255, 255, 255)" if theme == "light" else "rgb(20, 23, 27)")
            assert page.locator("nav a").count() == len(PAGES)
            if name != "gallery":
                assert page.locator("figure svg").count() >= 3


def test_whatever_goes_wrong_in_a_page_is_noticed(chromium: Browser, site: str) -> None:
    def spoil(fault: str) -> None:
        with chromium.page(f"{site}/index.html") as page:
            page.evaluate(f"{{ {fault} }}")
            page.wait_for_timeout(100)

    for fault in ("console.warn('x')", "setTimeout(() => { throw 1; })", "new Image().src = 'none.png'"):
        with pytest.raises(AssertionError):
            spoil(fault)


def test_the_theme_is_a_buttons_to_change(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/index.html") as page:
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 23, 27)"
        page.goto(f"{site}/scores.html")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_hostile_names_are_text(chromium: Browser, site: str) -> None:
    shown_category = HOSTILE_CATEGORY.replace("\u2029", "?")
    with chromium.page(f"{site}/gallery.html") as page:
        wait_for(page, f"{NUM_FOUND} detections in {NUM_IMAGES} images")
        assert names(page)[0] == HOSTILE_NAME
        assert shown_category in page.locator("#category-list").inner_text()
        page.click(".tile[data-place='2']")
        page.wait_for_selector("#viewer-instances tr")
        assert shown_category in page.locator("#viewer-instances").inner_text()
        assert page.locator("script:not([src])").count() == 0
    with chromium.page(f"{site}/index.html") as page:
        assert HOSTILE_REASON in page.locator("table").first.inner_text()
        assert page.locator("b", has_text="cut").count() == 0


def test_slider_categories_and_search_act_at_once(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        wait_for(page, f"{NUM_FOUND} detections in {NUM_IMAGES} images")
        slide(page, 0.9)
        wait_for(page, f"{NUM_CANS_AT_90} detections in {NUM_IMAGES} images")
        assert page.locator("#score-shown").text_content() == "0.90"
        slide(page, 0.91)
        wait_for(page, f"0 detections in {NUM_IMAGES} images")
        slide(page, 0)
        page.click("#category-list .chip:has-text('can')")
        wait_for(page, f"{sum(number % 4 > 1 for number in range(59))} detections in {NUM_IMAGES} images")
        page.click("#every-category")
        page.fill("#search", "PHOTO-1")
        wait_for(page, f"{sum(number % 4 for number in range(10, 20))} detections in 10 images")
        # The address says all of it, and a reload brings it back.
        assert page.evaluate("location.hash") == "#q=PHOTO-1"
        page.reload()
        wait_for(page, f"{sum(number % 4 for number in range(10, 20))} detections in 10 images")
        page.fill("#search", "<b>cut")
        wait_for(page, "0 detections in 1 image")
        assert HOSTILE_REASON in page.locator(".tile .reason").inner_text()


def test_search_finds_a_pasted_uri_and_the_folder_that_all_share(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        uri = page.locator(".tile[data-place='11']").get_attribute("title")
        assert uri.endswith("/images/photo-11.jpg")
        page.fill("#search", uri)
        wait_for(page, "3 detections in 1 image")
        page.fill("#search", uri.removesuffix("photo-11.jpg"))
        wait_for(page, f"{NUM_FOUND} detections in {NUM_IMAGES} images")


def test_a_script_that_is_gone_is_told_to_all_who_wait_for_it(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        load_twice = "() => Promise.allSettled([1, 2].map(() => window.site.load('gone', 'gallery/gone.js')))"
        answers = page.evaluate(load_twice)
        assert [answer["status"] for answer in answers] == ["rejected", "rejected"]
        assert chromium.complaints, "the browser tells of the file too"
        chromium.complaints.clear()


def test_a_thumbnail_shows_its_photo_and_what_was_found(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        tile = page.locator(".tile[data-place='3']")
        page.wait_for_selector(".tile[data-place='3'][data-drawn='3']")
        assert tile.locator("img").evaluate("image => image.naturalWidth") == 64
        painted = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
        assert tile.locator("canvas").evaluate(painted)
        slide(page, 0.91)
        page.wait_for_selector(".tile[data-place='3'][data-drawn='2']")  # what was found is missed now
        assert tile.locator(".counts").inner_text() == "0 found · 2 missed"


def test_sorting_and_the_kinds_of_images(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        page.wait_for_selector(".tile")
        page.select_option("#sort", "uncertain")
        page.wait_for_function("() => document.querySelector('.tile').dataset.place === '3'")
        means = page.evaluate("[...document.querySelectorAll('.tile')].map(tile => Number(tile.dataset.shown))")
        assert means == sorted(means, key=lambda shown: {3: 0, 2: 1, 1: 2, 0: 3}[shown])
        page.select_option("#sort", "errors")
        page.wait_for_function("() => document.querySelector('.tile .counts').textContent.includes('missed')")
        page.select_option("#only", "missed")
        wait_for(page, f"{sum(number % 4 for number in range(0, 60, 10))} detections in 6 images")
        page.select_option("#only", "wrong")
        num_wrong = sum(number % 4 == 3 for number in range(59))
        wait_for(page, f"{3 * num_wrong} detections in {num_wrong} images")
        page.select_option("#only", "failed")
        wait_for(page, "0 detections in 1 image")
        page.select_option("#only", "none")
        wait_for(page, f"0 detections in {sum(number % 4 == 0 for number in range(59))} images")


def test_pages_turn_and_keep_few_images(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        page.wait_for_selector(".tile")
        assert page.locator(".tile").count() == 48
        page.keyboard.press("PageDown")
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 12")
        assert page.locator(".page-shown").first.text_content() == "page 2 of 2"
        assert page.locator(".next").first.is_disabled()
        page.keyboard.press("PageUp")
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 48")
        page.wait_for_function("() => !document.querySelector('head script[src*=\"gallery/\"]')")


def test_an_image_opens_large_by_click_with_its_instances_marked(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        page.click(".tile[data-place='30']")
        page.wait_for_selector("#viewer-instances tr")
        assert page.locator("#viewer-name").text_content() == "photo-30.jpg"
        cells = [row.split("\t") for row in page.locator("#viewer-instances").inner_text().split("\n")]
        assert [(row[2], row[-1]) for row in cells if row[0]] == [("0.900", "right"), ("0.600", "right")]
        assert [row[1:] for row in cells if not row[0]] == [["bag", "", "8 × 8", "missed"]]
        lines = page.locator("#viewer-picture g .line")
        styles = lines.evaluate_all("all => all.map(line => line.getAttribute('stroke-dasharray'))")
        assert styles == ["none", "none", "2 3"]
        href = page.locator("#viewer-picture image").get_attribute("href")
        assert re.fullmatch(r"gallery/[\w-]+-000/000030\.jpg", href or "")
        page.hover("#viewer-instances tr:nth-child(2)")
        assert page.locator("#viewer-picture g.lit").count() == 1
        page.keyboard.press("Escape")
        page.wait_for_selector("#viewer", state="hidden")
        assert page.evaluate("document.activeElement.dataset.place") == "30"
        page.click(".tile[data-place='3']")
        page.wait_for_selector("#viewer-picture g.wrong")
        assert page.locator("#viewer-picture g.wrong .line").get_attribute("stroke-dasharray") == "6 4"


def test_the_keyboard_leads_everywhere(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html") as page:
        page.wait_for_selector(".tile[data-drawn]")
        page.keyboard.press("/")
        page.wait_for_function("() => document.activeElement.id === 'search'")
        page.keyboard.press("Escape")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
            page.keyboard.press(key)
        columns = page.evaluate(
            "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
        )
        page.wait_for_function(f"() => document.activeElement.dataset.place === '{columns}'")
        page.keyboard.press("Enter")
        page.wait_for_selector("#viewer[open]")
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            f"() => document.getElementById('viewer-name').textContent === 'photo-{columns + 1:02d}.jpg'"
        )
        page.wait_for_function(f"() => location.hash === '#image={columns + 1}'")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            f"() => document.getElementById('viewer-name').textContent === 'photo-{columns - 1:02d}.jpg'"
        )
        page.keyboard.press("Escape")
        page.wait_for_selector("#viewer", state="hidden")
        page.wait_for_function("() => document.activeElement.dataset.place !== undefined")
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        page.wait_for_selector("#viewer[open]")
        page.keyboard.press("ArrowRight")  # beyond the last of a page lies the next page
        page.wait_for_function("() => document.getElementById('viewer-name').textContent === 'photo-48.jpg'")
        page.keyboard.press("Escape")
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 12")


def test_what_has_no_photo_says_why(chromium: Browser, site: str) -> None:
    with chromium.page(f"{site}/gallery.html#page=2") as page:
        page.wait_for_selector(".tile[data-place='58'] .reason")
        assert "not_found: " in page.locator(".tile[data-place='58']").inner_text()
        page.click(".tile[data-place='58']")
        page.wait_for_selector("#viewer-picture g.right")
        assert "No photo: not_found: " in page.locator("#viewer-status").inner_text()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#viewer-picture .reason")
        assert HOSTILE_REASON in page.locator("#viewer-picture").inner_text()


def test_a_table_without_masks_and_truth_shows_boxes(chromium: Browser, tmp_path: Path) -> None:
    table, _ = write_labelled(tmp_path, with_masks=False)
    write_report(ReportConfig(table, str(tmp_path / "site"), max_images=10))
    with chromium.page(f"file://{tmp_path}/site/gallery.html") as page:
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 10")
        page.select_option("#only", "some")
        page.locator(".tile").first.click()
        page.wait_for_selector("#viewer-picture g.plain .line")
        assert page.locator("#viewer-instances tr").first.locator("td").count() == 4
        assert page.locator("#sort option[value=errors]").count() == 0
