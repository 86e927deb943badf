"""The folder of a site: a later one removes what an earlier one wrote, and nothing that somebody else did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn.report.site import RECORD, Site


def open_site(folder: Path) -> Site:
    site = Site(str(folder), "title", [])
    site.remember_earlier()
    return site


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {RECORD}


def test_what_was_not_written_again_goes_and_what_nobody_wrote_stays(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    for names in (("index.html", "counts.json", "shelves/000.jpg", "gallery/one/000/000000.js"), ("index.html",)):
        site = open_site(folder)
        for name in names:
            site.write(name, b"x")
        site.record()
        (folder / "gallery").mkdir(exist_ok=True)
        for theirs in ("notes.html", "gallery/notes.html"):
            (folder / theirs).write_text("mine")
        site.remove_earlier()
    assert files_of(folder) == {"index.html", "notes.html", "gallery/notes.html"}
    assert json.loads((folder / RECORD).read_text()) == {"files": ["index.html"]}


def test_what_a_killed_report_left_goes_with_the_next_one(tmp_path: Path) -> None:
    earlier = open_site(tmp_path)
    earlier.write("counts.json", b"x")
    earlier.record("gallery/one/000/000000.js", "gallery/one/000/000000.jpg")
    earlier.write("gallery/one/000/000000.js", b"x")
    later = open_site(tmp_path)
    later.write("index.html", b"x")
    later.record()
    later.remove_earlier()
    assert files_of(tmp_path) == {"index.html"}


@pytest.mark.parametrize("name", ["../notes.txt", "/notes.txt", "a/../../notes.txt", "..", "", 7, "a//b", "a\\b"])
def test_a_record_removes_nothing_outside_the_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"files": [name]}))
    open_site(folder).remove_earlier()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((folder / RECORD).read_text()) == {"files": []}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": null}', '{"files": {}}'])
def test_a_record_that_is_none_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    site = open_site(tmp_path)
    site.write("index.html", b"x")
    site.remove_earlier()
    assert files_of(tmp_path) == {"index.html"}
