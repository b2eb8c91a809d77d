"""Conversions refuse, and leave nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers_data import dataset, sample, wider_folder
from mirilla.data import read_dataset
from mirilla.data.convert import MARKER, convert
from mirilla.data.formats import WRITABLE
from mirilla.errors import DataError, MirillaError, UsageError


@pytest.mark.parametrize("to", WRITABLE)
def test_a_picture_that_vanishes_leaves_nothing(to, tmp_path):
    source = wider_folder(tmp_path / "src")
    found = read_dataset(source)
    (source / "WIDER_val/images/1--B/c.jpg").unlink()
    with pytest.raises(MirillaError, match=r"c\.jpg"):
        convert(found, tmp_path / "out", to)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_destination_in_the_way(tmp_path):
    source = dataset(sample())
    convert(source, tmp_path / "out", "csv")
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not empty") as caught:
        convert(source, tmp_path / "out", "csv")
    assert "--force" in caught.value.remedy
    convert(source, tmp_path / "out", "voc", force=True)
    assert (tmp_path / "out" / "Annotations").is_dir()
    assert not (tmp_path / "out" / "annotations.csv").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("x")
    with pytest.raises(DataError, match=f"no {MARKER}"):
        convert(source, tmp_path / "home", "csv", force=True)
    with pytest.raises(DataError, match="is a file"):
        convert(source, tmp_path / "home" / "letter.txt", "csv")
    (tmp_path / "bare").mkdir()
    convert(source, tmp_path / "bare", "csv")
    convert(source, tmp_path / "a.tfrecord", "tfrecord")
    with pytest.raises(DataError, match="exists already"):
        convert(source, tmp_path / "a.tfrecord", "tfrecord")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tfrecord", "bare", "home", "out"]


def test_refusals(tmp_path):
    source = dataset(sample(labels=["cat"]), sample("b.jpg", labels=["dog"]))
    with pytest.raises(DataError, match=r"'dog' \(1 boxes"):
        convert(source, tmp_path / "x", "yolo", labels=["cat"])
    with pytest.raises(DataError, match="one class, but the boxes have 2"):
        convert(source, tmp_path / "x", "widerface")
    with pytest.raises(UsageError, match="Shards"):
        convert(source, tmp_path / "x", "csv", shards=3)
    with pytest.raises(DataError, match="do not fill 3 shards"):
        convert(source, tmp_path / "x", "tfrecord", shards=3)
    with pytest.raises(DataError, match="cannot be a picture's name"):
        convert(dataset(sample("../a.jpg")), tmp_path / "x", "csv")
    assert not list(tmp_path.iterdir())


def test_pictures_that_differ_by_suffix_only(tmp_path):
    source = dataset(sample("a.jpg", labels=["cat"]), sample("a.png", labels=["dog"]))
    for to in ("voc", "yolo"):
        made = convert(source, tmp_path / to, to)
        assert [c.code for c in made.changes] == ["picture-renamed"]
        found = {s.filename: s.labels for s in read_dataset(tmp_path / to).samples}
        assert found == {"a.jpg": ("cat",), "a-png.png": ("dog",)}


def test_boxes_that_a_format_cannot_hold_are_reported(tmp_path):
    source = dataset(sample("a.jpg", [(-5, 2, 9, 12), (3, 3, 3, 9), (1, 1, 5, 5)]))
    made = convert(source, tmp_path / "t", "tfrecord")
    assert [c.code for c in made.changes] == ["box-clipped", "box-left-out"]
    assert made.boxes == 2
    assert convert(source, tmp_path / "c", "csv").changes == ()
    (kept,) = read_dataset(tmp_path / "c").samples
    np.testing.assert_allclose(kept.boxes_px_xyxy, source.samples[0].boxes_px_xyxy)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("to", ["csv", "tfrecord"])
def test_full_disk(to, tmp_path):
    """A real refusal of the operating system (a limit on the size of files), in a process of its own."""
    resource = pytest.importorskip("resource")
    wider_folder(tmp_path / "src")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mirilla.cli.main",
            "data",
            "convert",
            str(tmp_path / "src"),
            str(tmp_path / "out"),
            "--to",
            to,
        ],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")
def test_no_permission(tmp_path):
    wider_folder(tmp_path / "src")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(MirillaError, match="Permission denied"):
        convert(read_dataset(tmp_path / "src"), tmp_path / "locked" / "out", "csv")
    (tmp_path / "src/WIDER_val/images/1--B/c.jpg").chmod(0)
    assert [p.code for p in read_dataset(tmp_path / "src").problems] == ["unreadable-picture"]
