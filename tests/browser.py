"""A real browser for pages: Debian's Chromium, driven by Playwright; whatever a console would show is a complaint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser whose pages may not complain.

    Where a test waits for something, it gives a function: pages forbid that a text is evaluated again and again.

    Args:
        browser: Playwright's.
    """

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.complaints: list[str] = []

    @contextmanager
    def page(self, url: str, *, width: int = 1280, height: int = 900, theme: str = "light") -> Iterator[Any]:
        """Open a page in a window of its own, with nothing remembered; at its end nothing may have gone wrong."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url} {request.failure}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        try:
            page.goto(url)
            yield page
            assert self.complaints == []
        finally:
            self.complaints.clear()
            context.close()


def chromium_path() -> str:
    """Give where Chromium is; skips where it is not, but fails where `MASKRCNN_REQUIRE_BROWSER=1` wants it."""
    path = shutil.which("chromium")
    if path is None:
        missing = "no chromium on the path: apt-get install chromium"
        if os.environ.get("MASKRCNN_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium for a module: it is driven by an event loop, which other tests must not find running."""
    path = chromium_path()
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield Browser(browser)
        browser.close()
