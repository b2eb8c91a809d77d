"""The tutorial's data scripts: their folders, files and filter."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mirilla.cli.main import main
from mirilla.data.read import read_dataset

FACES = {  # picture -> faces: x y w h blur expression illumination invalid occlusion pose
    "0--Parade/a.jpg": ["10 20 60 50 0 0 0 0 0 0", "80 20 49 49 0 0 0 0 0 0", "1 2 60 60 1 0 0 0 0 0"],
    "0--Parade/b.jpg": ["10 20 70 70 0 0 0 1 0 0"],
    "1--Handshaking/c.jpg": ["150 50 60 30 0 0 0 0 2 1"],
    "1--Handshaking/d.jpg": [],
}


def write_wider(folder: Path, parts: tuple[str, ...] = ("train", "val")) -> Path:
    for part in parts:
        lines = []
        for name, faces in FACES.items():
            path = folder / f"WIDER_{part}" / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 120), (90, 120, len(part))).save(path)
            lines += [name, str(len(faces)), *(faces or ["0 0 0 0 0 0 0 0 0 0"])]
        (folder / "wider_face_split").mkdir(exist_ok=True)
        (folder / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wider(tmp_path / "photos")
    return tmp_path


def records(part: str) -> list[str]:
    return [
        f"--images_path=data/tf_wider_{part}/images",
        f"--csv_input=data/tf_wider_{part}/{part}.csv",
        f"--output_path=data/{part}.record",
    ]


def test_the_four_scripts(here):
    assert main(["tf1", "001_down_data.py", "--from", "photos"]) == 0
    assert main(["tf1", "002_data-to-pascal-xml.py"]) == 0
    assert main(["tf1", "003_xml-to-csv.py"]) == 0
    assert main(["tf1", "004_generate_tfrecord.py", *records("train")]) == 0
    assert main(["tf1", "004_generate_tfrecord.py", *records("val"), "--alsologtostderr"]) == 0

    folder = here / "data/tf_wider_train"
    assert (here / "data/WIDER_train").is_symlink()
    assert (folder / "annotations/train.txt").read_text() == "a\nc\n"
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["a.jpg", "c.jpg"]
    assert (folder / "images/a.jpg").read_bytes() == (here / "photos/WIDER_train/images/0--Parade/a.jpg").read_bytes()
    assert list(csv.reader((folder / "train.csv").read_text().splitlines())) == [
        ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"],
        ["a.jpg", "200", "120", "face", "10", "20", "70", "70"],
        ["c.jpg", "200", "120", "face", "150", "50", "210", "80"],
    ]
    dataset = read_dataset(here / "data/train.record")
    assert [sample.filename for sample in dataset.samples] == ["a.jpg", "c.jpg"]
    np.testing.assert_allclose(dataset.samples[0].boxes_yxyx, [[20 / 120, 10 / 200, 70 / 120, 70 / 200]], atol=1e-6)
    np.testing.assert_allclose(dataset.samples[1].boxes_yxyx, [[50 / 120, 0.75, 80 / 120, 1.0]], atol=1e-6)
    assert (here / "data/val.record").is_file()
    assert '"face"' in (here / "data/face_label.pbtxt").read_text()


def test_the_xml_has_the_box_where_the_original_looks_for_it(here):
    """The original reads the children of <object> by position: name is 0, bndbox is 4."""
    from xml.etree import ElementTree

    main(["tf1", "down_data", "--from", "photos"])
    main(["tf1", "data_to_pascal_xml"])
    root = ElementTree.parse("data/tf_wider_train/annotations/xmls/a.xml").getroot()
    size, item = root.find("size"), root.find("object")
    assert size is not None
    assert item is not None
    assert [int(size[i].text or "") for i in (0, 1)] == [200, 120]
    assert item[0].text == "face"
    assert [int(corner.text or "") for corner in item[4]] == [10, 20, 70, 70]


def test_running_again_changes_nothing_and_foreign_files_are_kept(here, capsys):
    for script in ("down_data", "data_to_pascal_xml", "xml_to_csv"):
        assert main(["tf1", script, *(["--from", "photos"] if script == "down_data" else [])]) == 0
        assert main(["tf1", script, *(["--from", "photos"] if script == "down_data" else [])]) == 0
    table = here / "data/tf_wider_train/train.csv"
    table.write_text("mine\n")
    assert main(["tf1", "xml_to_csv"]) == 1
    assert "train.csv" in capsys.readouterr().err
    assert table.read_text() == "mine\n"
    record = here / "mine.record"
    record.write_bytes(b"mine")
    assert main(["tf1", "generate_tfrecord", *records("val")[:2], "--output_path=mine.record"]) == 1
    assert record.read_bytes() == b"mine"


def test_photos_in_another_format(here):
    (here / "voc/images").mkdir(parents=True)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for index in range(5):
        Image.new("RGB", (100, 80)).save(here / f"voc/images/{index}.jpg")
        rows.append(f"{index}.jpg,100,80,face,10,10,70,75")
    (here / "voc/annotations.csv").write_text("\n".join(rows) + "\n")
    assert main(["tf1", "down_data", "--from", "voc"]) == 0
    assert main(["tf1", "data_to_pascal_xml"]) == 0
    names = [(here / f"data/tf_wider_{word}/annotations/{word}.txt").read_text().split() for word in ("train", "val")]
    assert sorted(names[0] + names[1]) == list("01234")
    assert names[1]


def test_copies(here):
    assert main(["tf1", "down_data", "--from=photos", "--copy"]) == 0
    assert not (here / "data/WIDER_train").is_symlink()
    assert (here / "data/WIDER_val/images").is_dir()


def test_a_part_may_be_missing(here, tmp_path, capsys):
    write_wider(tmp_path / "only", ("train",))
    assert main(["tf1", "down_data", "--from", "only"]) == 0
    assert main(["tf1", "data_to_pascal_xml"]) == 0
    assert "'val' is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data_to_pascal_xml"], "mirilla tf1 down_data"),
        (["xml_to_csv"], "mirilla tf1 data_to_pascal_xml"),
        (["down_data", "--from", "nowhere"], "nowhere: no such folder"),
        (["generate_tfrecord", "--csv_input=x.csv", "--output_path=o", "--images_path=none"], "none: no such folder"),
        (["generate_tfrecord", "--csv_input=x.csv", "--output_path=o", "--images_path=photos"], "x.csv"),
    ],
)
def test_what_is_missing_is_named(here, capsys, words, message):
    assert main(["tf1", *words]) == 1
    assert message in capsys.readouterr().err


def test_other_classes_need_a_label_map(here, capsys):
    main(["tf1", "down_data", "--from", "photos"])
    main(["tf1", "data_to_pascal_xml"])
    main(["tf1", "xml_to_csv"])
    table = here / "data/tf_wider_train/train.csv"
    (here / "cats.csv").write_text(table.read_text().replace("face", "cat"))
    words = ["--images_path=data/tf_wider_train/images", "--csv_input=cats.csv", "--output_path=cats.record"]
    assert main(["tf1", "generate_tfrecord", *words]) == 1
    assert "'cat'" in capsys.readouterr().err
    (here / "cats.pbtxt").write_text("item { id: 1 name: 'cat' }\n")
    assert main(["tf1", "generate_tfrecord", *words, "--label_map=cats.pbtxt"]) == 0
