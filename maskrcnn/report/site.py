"""A static site: pages from templates, their style and scripts, written below one folder on any URI.

Pages work from a file as from a bucket: no network, no server, so no fetch; what a script reads is a script too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import maskrcnn
from maskrcnn import storage
from maskrcnn.errors import NotFoundError, OutputError

RECORD = "files.json"
"""Which files of the folder are a site's, so that the next one removes these and nothing else."""
WRITES_IN_FLIGHT = 32
_NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*")


class Site:
    """The folder of a site; what is there under the same names is replaced.

    Args:
        uri: the folder.
        title: of every page.
        pages: (file name, label) of the navigation, in order.
    """

    def __init__(self, uri: str, title: str, pages: Iterable[tuple[str, str]]) -> None:
        self.uri = storage.normalise(uri)
        self._written: set[str] = set()
        self._earlier: set[str] = set()
        self._common = {"site_title": title, "pages": list(pages), "version": maskrcnn.__version__}

    def write_page(self, name: str, template: str, **values: Any) -> None:
        """Render a template, with every value escaped, into the page ``name``."""
        text = _templates().get_template(template).render(self._common | {"page_name": name} | values)
        self.write(name, text.encode())

    def write_assets(self, *names: str) -> None:
        """Write style sheets and scripts of this package, under ``assets/``."""
        folder = resources.files("maskrcnn.report") / "assets"
        for name in ("style.css", "site.js", *names):
            self.write(f"assets/{name}", (folder / name).read_bytes())

    def write(self, name: str, body: bytes) -> None:
        """Write a file of the site."""
        storage.put(storage.join(self.uri, *name.split("/")), body)
        self._written.add(name)

    def remember_earlier(self) -> None:
        """Read what an earlier site has left here; call it before the first `record`."""
        self._earlier |= _load_record(self.uri)

    def record(self, *coming: str) -> None:
        """Write down which files are a site's: this one's so far, an earlier one's, and some that are coming.

        Before files are written, so that those of a report that was killed are known as well.
        """
        self._earlier |= set(coming)
        self._put_record(self._written | self._earlier)

    def remove_earlier(self) -> None:
        """Remove the files that an earlier site wrote and this one did not; anybody else's stay."""
        others = sorted(self._earlier - self._written)
        with ThreadPoolExecutor(WRITES_IN_FLIGHT) as threads:
            uris = (storage.join(self.uri, *name.split("/")) for name in others)
            for done in [threads.submit(storage.delete, uri) for uri in uris]:
                done.result()
        self._earlier.clear()
        self._put_record(self._written)

    def _put_record(self, names: set[str]) -> None:
        body = json.dumps({"files": sorted(names)}, indent=0).encode()
        storage.put(storage.join(self.uri, RECORD), body)

    def write_many(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write many files at once, as they come; no more of them wait in memory than are being written."""
        with ThreadPoolExecutor(WRITES_IN_FLIGHT) as threads:
            waiting = set()
            for name, body in files:
                waiting.add(threads.submit(self.write, name, body))
                if len(waiting) >= 2 * WRITES_IN_FLIGHT:
                    done = waiting.pop()
                    done.result()
            for future in waiting:
                future.result()


def check_folder(uri: str, marker: str, made_by: str) -> None:
    """Refuse to write a site into a folder that holds something else.

    Args:
        uri: the folder, normalised.
        marker: a JSON file in it, of which ``made_by`` says whose the folder is.
        made_by: who may replace it.

    Raises:
        OutputError: a file, or a folder with files of somebody else.
    """
    if storage.is_local(uri) and storage.exists(uri):
        raise OutputError("--output", "must be a folder, and is a file", uri)
    try:
        claim = json.loads(storage.read_bytes(storage.join(uri, marker)))
        is_ours = isinstance(claim, dict) and claim.get("made_by") == made_by
    except (NotFoundError, ValueError):
        is_ours = False
    if not is_ours and any(batch.num_rows for batch in storage.list_batches(uri)):
        raise OutputError("--output", f"must be a new folder, or one that {made_by} wrote", uri, "name another")


def script(name: str, value: Any) -> bytes:
    """Give a script that hands a value to the pages: ``window.site.take(name, value)``.

    A page that is a file may load scripts beside it, but may not fetch JSON.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"window.site.take({json.dumps(name)},{text});\n".encode()


def _load_record(site_uri: str) -> set[str]:
    """Read the names of an earlier site's files; what leads out of the folder is none."""
    try:
        record = json.loads(storage.read_bytes(storage.join(site_uri, RECORD)))
    except (NotFoundError, ValueError):
        return set()
    names = record.get("files") if isinstance(record, dict) else None
    return {name for name in names or [] if isinstance(name, str) and _NAME.fullmatch(name)}


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("maskrcnn.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
