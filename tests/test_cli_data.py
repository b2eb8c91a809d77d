"""The command line of `mirilla data`."""

from __future__ import annotations

import json

import pytest

from helpers_data import picture, wider_folder
from mirilla.cli.main import main
from mirilla.data import read_dataset


def test_convert_and_stats_and_check(tmp_path, capsys):
    source, out = str(wider_folder(tmp_path / "src")), str(tmp_path / "out")
    assert main(["data", "convert", source, out, "--to", "tfrecord", "--shards", "1", "--filter", "tutorial"]) == 0
    text = capsys.readouterr().out
    assert "Filter 'tutorial': 2 of 4 boxes kept" in text
    assert "Wrote 3 pictures with 2 boxes (face) as tfrecord" in text
    assert "Next: mirilla data stats" in text
    assert main(["data", "convert", source, out, "--to", "tfrecord"]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["data", "convert", source, out, "--to", "yolo", "--force", "--rename", "face=head"]) == 0
    assert "4 boxes 'face' are renamed to 'head'" in capsys.readouterr().out
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
