"""Folders that cannot be read are reported."""

from __future__ import annotations

import errno
import os

import pytest

from helpers_data import picture
from mirilla.data import read_dataset
from mirilla.data.dataset import EmptyDatasetError
from mirilla.data.folders import files_below

BOX = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
DOCUMENT = f"<annotation><object><name>face</name><bndbox>{BOX}</bndbox></object></annotation>"


@pytest.fixture
def locked(monkeypatch):
    """Makes folders called 'locked' unreadable, also for root."""
    scandir = os.scandir

    def refuse(path="."):
        if os.path.basename(os.fspath(path)) == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_files_below(tmp_path, locked):
    for name in ("b/c.xml", "a.xml", "b/locked/d.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path.parent / f"{tmp_path.name}-elsewhere").mkdir()
    (tmp_path.parent / f"{tmp_path.name}-elsewhere" / "e.xml").touch()
    (tmp_path / "link").symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    files, problems = files_below(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["a.xml", "b/c.xml", "link/e.xml"]
    (finding,) = problems
    assert (finding.severity, finding.code) == ("error", "unreadable-folder")
    assert finding.where == str(tmp_path / "b" / "locked")
    assert "Permission denied" in finding.what


def test_voc_with_an_unreadable_folder(tmp_path, locked):
    for folder in ("job1", "locked"):
        for kind, suffix, content in (("Annotations", "xml", DOCUMENT.encode()), ("JPEGImages", "jpg", picture())):
            path = tmp_path / kind / folder / f"a.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["job1/a.jpg"]
    assert [p.code for p in found.problems] == ["unreadable-folder"]
    (tmp_path / "Annotations" / "job1" / "a.xml").write_text("<annotation>")
    with pytest.raises(EmptyDatasetError) as caught:
        read_dataset(tmp_path)
    assert {p.code for p in caught.value.problems} == {"unreadable-folder", "bad-annotation"}
