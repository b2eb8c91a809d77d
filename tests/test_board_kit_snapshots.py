"""The kit's snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirilla.board.kit import snapshots
from mirilla.board.kit.errors import KitError
from mirilla.board.kit.snapshots import Snapshots


def test_the_newest_are_kept(tmp_path: Path):
    folder = tmp_path / "shots"
    shots = Snapshots(str(folder), 3, 5.0, print)
    (folder / "mine.jpg").write_bytes(b"a file of the user's")
    (folder / "kit-notes.jpg").write_bytes(b"another")
    assert shots.is_due(0.0)
    for i in range(5):
        assert shots.save(b"jpeg %d" % i, 10.0 * i)
    assert not shots.is_due(44.9)
    assert shots.is_due(45.0)
    kept = sorted(folder.glob("kit-0*.jpg"))
    assert [path.read_bytes() for path in kept] == [b"jpeg 2", b"jpeg 3", b"jpeg 4"]
    assert (folder / "mine.jpg").exists()
    assert (folder / "kit-notes.jpg").exists()
    assert not list(folder.glob("*.part"))
    again = Snapshots(str(folder), 2, 0.0, print)  # continues the numbers
    name = again.save(b"jpeg 5", 0.0)
    assert name is not None
    assert name.startswith("kit-00000006-")
    assert len(list(folder.glob("kit-0*.jpg"))) == 2


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []
    shots = Snapshots(str(tmp_path), 3, 0, log.append)
    monkeypatch.setattr(snapshots, "MIN_FREE_BYTES", 1 << 62)
    assert shots.save(b"jpeg", 0) is None
    assert shots.save(b"jpeg", 1) is None
    assert len(log) == 1  # not at each frame
    monkeypatch.undo()
    assert shots.save(b"jpeg", 2)


def test_a_folder_that_cannot_be_created(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="--snapshots"):
        Snapshots(str(tmp_path / "file" / "in"), 3, 0, print)
