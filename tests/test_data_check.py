"""Checks, statistics, conversion's refusals, and the command line of `mirilla data`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers_data import dataset, picture, sample, wider_folder
from mirilla.cli.main import main
from mirilla.data import read_dataset
from mirilla.data.check import check, check_boxes
from mirilla.data.convert import MARKER, convert
from mirilla.data.dataset import combine
from mirilla.data.formats import WRITABLE
from mirilla.data.statistics import box_sizes, statistics
from mirilla.errors import DataError, MirillaError, UsageError


@pytest.mark.parametrize(
    ("box", "severity", "code"),
    [
        ((9, 2, 3, 12), "error", "box-inverted"),
        ((3, 2, 3, 12), "error", "box-empty"),
        ((30, 2, 40, 12), "error", "box-outside"),
        ((-9, -9, 0, 5), "error", "box-outside"),
        ((-2, 2, 9, 12), "warning", "box-reaches-out"),
        ((3, 2, 30.4, 12), "note", "box-reaches-out"),
        ((3, 2, np.nan, 12), "error", "box-not-finite"),
    ],
)
def test_boxes_that_are_wrong(box, severity, code):
    (found,) = check_boxes(sample("a.jpg", [(1, 1, 2, 2), box], where="gt.txt, line 5"))
    assert (found.severity, found.code, found.where) == (severity, code, "gt.txt, line 5")
    assert "a.jpg, box 2 (face" in found.what
    if severity == "error" and code != "box-not-finite":
        (found,) = check_boxes(sample("a.jpg", [box], ignore=[True]))
        assert found.severity == "warning"


def test_boxes_that_are_right_or_twice():
    assert not check_boxes(sample("a.jpg", [(0, 0, 30, 20), (3, 2, 9, 12)]))
    (found,) = check_boxes(sample("a.jpg", [(3, 2, 9, 12), (1, 1, 4, 4), (3, 2, 9, 12)]))
    assert (found.code, "box 3" in found.what, "box 1" in found.what) == ("box-twice", True, True)
    assert not check_boxes(sample("a.jpg", [(3, 2, 9, 12)] * 2, ["cat", "dog"]))


def test_labels_duplicates_and_broken_pictures():
    same = picture(seed=5)
    found = check(
        dataset(
            sample("a.jpg", labels=["cat"], image=same),
            sample("b.jpg", labels=["Cat"], image=same),
            sample("c.jpg", labels=["cow"], image=picture(200, 300)[:3000], height=200, width=300),
            parts={"a.jpg": "train", "b.jpg": "eval"},
        ),
        labels=["cat", "Cat"],
    )
    codes = [(f.severity, f.code) for f in found]
    assert codes == [
        ("error", "unknown-label"),
        ("error", "unreadable-picture"),
        ("warning", "similar-labels"),
        ("warning", "duplicate-picture"),
    ]
    assert "'cow'" in found[0].what
    assert "c.jpg" in found[1].what
    assert (
        "byte for byte, as a.jpg, and they are in different parts (eval and train); their boxes differ" in found[3].what
    )
    quick = check(dataset(sample("c.jpg", image=picture(200, 300)[:3000], height=200, width=300)), decode=False)
    assert quick == []


def test_statistics_by_hand():
    found = statistics(
        dataset(
            sample("a.jpg", [(0, 0, 64, 64), (0, 0, 128, 32)], ["cat", "dog"], height=256, width=512),
            sample(
                "b.jpg",
                [(0, 0, 10, 20), (5, 5, 5, 9)],
                ["cat", "cat"],
                height=128,
                width=64,
                ignore=[True, False],
            ),
            sample("c.jpg", []),
            parts={"a.jpg": "train", "b.jpg": "train", "c.jpg": "eval"},
        )
    )
    assert (found.pictures, found.boxes, found.pictures_without_boxes, found.ignored, found.empty_boxes) == (
        3,
        4,
        1,
        1,
        1,
    )
    assert found.boxes_per_label == {"cat": 3, "dog": 1}
    assert found.pictures_per_label == {"cat": 2, "dog": 1}
    assert found.pictures_per_part == {"train": 2, "eval": 1}
    # at a long side of 256 both boxes of a.jpg shrink to half: 32 x 32 and 64 x 16, so sqrt(w h) is 32 twice
    assert found.box_size_px["median"] == 32
    assert found.box_aspect == pytest.approx(
        {"least": 1, "5%": 1.15, "25%": 1.75, "median": 2.5, "75%": 3.25, "95%": 3.85, "most": 4}
    )
    assert {(low, high): n for low, high, n in found.size_histogram if n} == {(32, 48): 2}
    np.testing.assert_allclose(box_sizes(np.array([[0, 0, 0.5, 0.5]]), 100, 200), [np.sqrt(64 * 128)])
    assert json.loads(json.dumps(found.as_json()))["boxes"] == 4


def test_statistics_of_pictures_without_boxes():
    assert statistics(dataset(sample("a.jpg", []))).box_size_px == {}


def test_combine_keeps_every_picture():
    one = dataset(sample("a.jpg", labels=["cat"]), sample("b.jpg"), parts={"a.jpg": "train"})
    both = combine([one, dataset(sample("a.jpg", labels=["dog"]))])
    assert [s.filename for s in both.samples] == ["toy/a.jpg", "b.jpg", "toy/a-2.jpg"]
    assert both.parts == {"toy/a.jpg": "train"}
    assert set(both.labels) == {"cat", "dog", "face"}


# --- conversion refuses, and leaves nothing half-written


@pytest.mark.parametrize("to", WRITABLE)
def test_a_picture_that_vanishes_leaves_nothing(to, tmp_path):
    source = wider_folder(tmp_path / "src")
    found = read_dataset(source)
    (source / "WIDER_val/images/1--B/c.jpg").unlink()
    with pytest.raises(MirillaError, match=r"c\.jpg"):
        convert(found, tmp_path / "out", to)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_destination_in_the_way(tmp_path):
    one = dataset(sample())
    convert(one, tmp_path / "out", "csv")
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not empty") as caught:
        convert(one, tmp_path / "out", "csv")
    assert "--force" in caught.value.remedy
    convert(one, tmp_path / "out", "voc", force=True)
    assert (tmp_path / "out" / "Annotations").is_dir()
    assert not (tmp_path / "out" / "annotations.csv").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("x")
    with pytest.raises(DataError, match=f"no {MARKER}"):
        convert(one, tmp_path / "home", "csv", force=True)
    with pytest.raises(DataError, match="is a file"):
        convert(one, tmp_path / "home" / "letter.txt", "csv")
    (tmp_path / "bare").mkdir()
    convert(one, tmp_path / "bare", "csv")
    convert(one, tmp_path / "a.tfrecord", "tfrecord")
    with pytest.raises(DataError, match="exists already"):
        convert(one, tmp_path / "a.tfrecord", "tfrecord")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tfrecord", "bare", "home", "out"]


def test_refusals(tmp_path):
    one = dataset(sample(labels=["cat"]), sample("b.jpg", labels=["dog"]))
    with pytest.raises(DataError, match=r"'dog' \(1 boxes"):
        convert(one, tmp_path / "x", "yolo", labels=["cat"])
    with pytest.raises(DataError, match="one class, but the boxes have 2"):
        convert(one, tmp_path / "x", "widerface")
    with pytest.raises(UsageError, match="Shards"):
        convert(one, tmp_path / "x", "csv", shards=3)
    with pytest.raises(DataError, match="do not fill 3 shards"):
        convert(one, tmp_path / "x", "tfrecord", shards=3)
    with pytest.raises(DataError, match="cannot be a picture's name"):
        convert(dataset(sample("../a.jpg")), tmp_path / "x", "csv")
    assert not list(tmp_path.iterdir())


def test_pictures_that_differ_by_suffix_only(tmp_path):
    one = dataset(sample("a.jpg", labels=["cat"]), sample("a.png", labels=["dog"]))
    for to in ("voc", "yolo"):
        made = convert(one, tmp_path / to, to)
        assert [c.code for c in made.changes] == ["picture-renamed"]
        found = {s.filename: s.labels for s in read_dataset(tmp_path / to).samples}
        assert found == {"a.jpg": ("cat",), "a-png.png": ("dog",)}


def test_boxes_that_a_format_cannot_hold_are_told(tmp_path):
    one = dataset(sample("a.jpg", [(-5, 2, 9, 12), (3, 3, 3, 9), (1, 1, 5, 5)]))
    made = convert(one, tmp_path / "t", "tfrecord")
    assert [c.code for c in made.changes] == ["box-clipped", "box-left-out"]
    assert made.boxes == 2
    assert convert(one, tmp_path / "c", "csv").changes == ()
    (kept,) = read_dataset(tmp_path / "c").samples
    np.testing.assert_allclose(kept.boxes_px_xyxy, one.samples[0].boxes_px_xyxy)


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


# --- the command line


def test_convert_and_stats_and_check(tmp_path, capsys):
    source, out = str(wider_folder(tmp_path / "src")), str(tmp_path / "out")
    assert main(["data", "convert", source, out, "--to", "tfrecord", "--shards", "1", "--filter", "tutorial"]) == 0
    text = capsys.readouterr().out
    assert "Filter 'tutorial': 2 of 4 boxes stay" in text
    assert "Wrote 3 pictures with 2 boxes (face) as tfrecord" in text
    assert "Next: mirilla data stats" in text
    assert main(["data", "convert", source, out, "--to", "tfrecord"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["data", "convert", source, out, "--to", "yolo", "--force", "--rename", "face=head"]) == 0
    assert "4 boxes 'face' are called 'head' now" in capsys.readouterr().out
    assert main(["data", "stats", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["boxes_per_label"] == {"head": 3}
    assert main(["data", "stats", source]) == 0
    assert "box size at 256 px" in capsys.readouterr().out
    assert main(["data", "check", source]) == 0
    assert "0 errors" in capsys.readouterr().out


def test_check_lists_and_exits_with_1(tmp_path, capsys):
    source = wider_folder(tmp_path / "src")
    (source / "WIDER_train/images/0--A/b.jpg").unlink()
    (source / "WIDER_train/images/0--A/extra.jpg").write_bytes(picture())
    whole = (source / "WIDER_val/images/1--B/c.jpg").read_bytes()
    (source / "WIDER_val/images/1--B/c.jpg").write_bytes(whole[:-300])
    assert main(["data", "check", str(source), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {f["code"] for f in found["findings"]} == {
        "missing-picture",
        "unreadable-picture",
        "box-empty",
        "picture-without-annotation",
    }
    assert found["counts"] == {"error": 2, "warning": 1, "note": 1}
    assert main(["data", "check", str(source), "--quick"]) == 1
    assert "1 errors" in capsys.readouterr().out
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'cat' }")
    assert main(["data", "check", f"{source}@train", "--label-map", str(tmp_path / "map.pbtxt")]) == 1
    assert "'face', which is not in the label map" in capsys.readouterr().out


def test_check_of_a_set_without_one_usable_picture_lists_them_all(tmp_path, capsys):
    source = wider_folder(tmp_path / "src")
    for path in source.glob("WIDER_*/images/*/*.jpg"):
        path.unlink()
    assert main(["data", "check", str(source)]) == 1
    text = capsys.readouterr().out
    assert text.count("[missing-picture]") == 3
    assert "0 usable pictures, 0 boxes, 0 labels: 3 errors" in text
    assert main(["data", "stats", str(source)]) == 1
    assert "no picture of the data set can be used (3 problems)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stats", "no/such/folder"], 1, "no such file or folder"),
        (["stats", "{src}", "--split", "test"], 1, "no picture in the part 'test'"),
        (["stats", "{src}", "--from", "yolo"], 1, "no data.yaml"),
        (["convert", "{src}", "{out}", "--to", "csv", "--rename", "face"], 2, "OLD=NEW"),
        (["convert", "{src}", "{out}", "--to", "csv", "--eval-share", "2"], 1, "between 0 and 1"),
        (["convert", "{src}", "{out}", "--to", "csv", "--label-map", "{src}/no.pbtxt"], 1, "no.pbtxt"),
        (["convert", "{src}", "{out}", "--to", "csv", "--shards", "4"], 2, "Shards"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, code, message):
    wider_folder(tmp_path / "src")
    places = {"src": tmp_path / "src", "out": tmp_path / "out"}
    assert main(["data", *(a.format(**places) for a in arguments)]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_eval_share_makes_parts(tmp_path, capsys):
    source = wider_folder(tmp_path / "src")
    assert main(["data", "convert", str(source), str(tmp_path / "o"), "--to", "csv", "--eval-share", "0.4"]) == 0
    assert set(read_dataset(tmp_path / "o").parts.values()) == {"train", "eval"}
