"""TFRecord files of samples, and TensorFlow as the second reader and writer."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest

from helpers_data import dataset, picture, rotated, sample
from mirilla.cli.main import main
from mirilla.data import images, read_dataset, records, tfrecord
from mirilla.data.dataset import EmptyDatasetError
from mirilla.data.output import safe_name
from mirilla.errors import DataError, MirillaError
from mirilla.protos import example


def test_shard_names_and_missing_shards(tmp_path):
    samples = [sample(f"{i}.jpg") for i in range(7)]
    paths = tfrecord.write_tfrecords(samples, ["face"], tmp_path / "train.tfrecord", 3)
    assert [p.name for p in paths] == [f"train-0000{i}-of-00003.tfrecord" for i in range(3)]
    for form in (
        tmp_path / "train.tfrecord",
        tmp_path / "train-*",
        [tmp_path / "train-?????-of-00003.tfrecord"],
    ):
        assert sorted(s.filename for s in tfrecord.read_tfrecords(form)) == [f"{i}.jpg" for i in range(7)]
    paths[1].unlink()
    with pytest.raises(DataError, match="1 of 3 shards are missing, the first is number 00001"):
        list(tfrecord.read_tfrecords(tmp_path / "train-*"))
    assert len(list(tfrecord.read_tfrecords([paths[0]]))) == 3
    with pytest.raises(DataError, match="no TFRecord file"):
        list(tfrecord.read_tfrecords(tmp_path / "other*"))


def test_wrong_label_writes_nothing(tmp_path):
    with pytest.raises(DataError, match="'dog' is not in the label map"):
        tfrecord.write_tfrecords([sample(), sample("b.jpg", labels=["dog"])], ["face"], tmp_path / "a.tfrecord", 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no picture"):
        tfrecord.write_tfrecords([], ["face"], tmp_path / "a.tfrecord")
    assert not list(tmp_path.iterdir())


def test_broken_file_in_a_data_set_keeps_the_records_before(tmp_path):
    (path,) = tfrecord.write_tfrecords([sample(f"{i}.jpg") for i in range(3)], ["face"], tmp_path / "a.tfrecord")
    path.write_bytes(path.read_bytes()[:-10])
    found = read_dataset(path)
    assert [s.filename for s in found.samples] == ["0.jpg", "1.jpg"]
    assert [p.code for p in found.problems] == ["broken-record"]
    assert "record 2" in found.problems[0].what


def test_names_that_lead_out_of_the_folder_are_made_safe():
    assert safe_name("/etc/x.jpg") == "etc/x.jpg"
    assert safe_name("..\\..\\C:/x") == "x.jpg"
    assert safe_name("", "png") == "picture.png"


def test_records_of_the_original_api(shared):
    found = read_dataset(shared / "data/odapi/val.record")
    truth = json.loads((shared / "data/odapi/val_ann.json").read_text())
    assert [s.filename for s in found.samples] == [t["name"] for t in truth]
    for loaded, t in zip(found.samples, truth, strict=True):
        assert (loaded.height_px, loaded.width_px) == (t["h"], t["w"])
        assert set(loaded.labels) == {"face"}
        np.testing.assert_allclose(loaded.boxes_px_xyxy, t["boxes_xyxy"], atol=1e-3)


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import errno

    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_record", full)
    with pytest.raises(MirillaError, match="No space left") as caught:
        tfrecord.write_tfrecords([sample()], ["face"], tmp_path / "a.tfrecord")
    assert "Free some space" in caught.value.remedy
    assert not list(tmp_path.iterdir())


CORNERS = ("xmin", "xmax", "ymin", "ymax")
NO_BOXES: dict[str, list] = {
    f"object_{name}": [] for name in ("class_text", "class_label", *(f"bbox_{n}" for n in CORNERS))
}


def features(**changed: list) -> dict[str, list]:
    """The features of a record with a box x 50 to 110, y 30 to 110 px in a picture of 200x150 px."""
    whole = {
        "encoded": [picture(150, 200)],
        "filename": [b"a.jpg"],
        "object/bbox/xmin": [50 / 200],
        "object/bbox/xmax": [110 / 200],
        "object/bbox/ymin": [30 / 150],
        "object/bbox/ymax": [110 / 150],
        "object/class/text": [b"face"],
        "object/class/label": [1],
    }
    whole |= {name.replace("_", "/", 2) if name.startswith("object_") else name: v for name, v in changed.items()}
    return {f"image/{name}": values for name, values in whole.items() if values}


def record_file(path, *records_: dict[str, list], compress=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    for record in records_:
        records.write_record(file, example.encode(record))
    path.write_bytes(compress(file.getvalue()) if compress else file.getvalue())
    return path


def test_gzip_is_read_and_other_kinds_are_named(tmp_path):
    path = record_file(tmp_path / "train.record", features(), features(filename=[b"b.jpg"]), compress=gzip.compress)
    (tmp_path / "._train.record").write_bytes(b"\0\5\x16\7")
    assert [s.filename for s in read_dataset(tmp_path).samples] == ["a.jpg", "b.jpg"]
    assert len(list(tfrecord.read_tfrecords(path))) == 2
    with pytest.raises(DataError, match="compressed, but training reads single records") as caught:
        records.offsets(path)
    *words, destination, option, to = (caught.value.remedy or "").removeprefix("Convert it: mirilla ").split()
    assert (words, destination) == (["data", "convert", str(path)], "DST")
    assert main([*words, str(tmp_path / "made"), option, to]) == 0
    assert len(records.offsets(tmp_path / "made" / "train.tfrecord")) == 2
    for content, what in (
        (path.read_bytes()[:-30], "compressed file is broken"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        (zlib.compress(bytes(100)), "compressed with zlib"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=what):
            list(records.read_records(path))
    path.write_bytes(gzip.compress(struct.pack("<QI", 1 << 40, records.masked_crc32c(struct.pack("<Q", 1 << 40)))))
    with pytest.raises(DataError, match="should hold 1099511627776 bytes"):
        list(records.read_records(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"object_bbox_ymin": [0]}, "image/object/bbox/ymin has integers, but must have floats"),
        ({"object_bbox_xmax": [b"0.5"]}, "image/object/bbox/xmax has bytes, but must have numbers"),
        ({"object_bbox_xmax": [0.5, 0.6]}, r"\[1, 1, 1, 2\] values; they must have the same length"),
        ({"object_class_text": [b"face", b"mask"]}, "1 boxes but 2 labels"),
        ({"object_class_text": [], "object_class_label": []}, r"1 boxes but 0 labels \(in image/object/class/text or"),
        ({"object_class_text": [3]}, "class/text has numbers, but must have bytes"),
        ({"object_class_text": ["Größe".encode("cp1252")]}, "class/text is not UTF-8: b'Gr"),
        ({"object_class_text": [], "object_class_label": [1.5]}, "class/label has numbers that are not whole"),
        ({"object_class_text": [], "object_class_label": [float("nan")]}, "class/label has numbers that are not whole"),
        ({"object_class_text": [], "object_class_label": [b"1"]}, "class/label has bytes"),
        ({"object_weight": [float("nan")]}, "image/object/weight has a number that is not finite"),
        ({"object_difficult": [0, 1]}, "image/object/difficult has 2 values for 1 boxes"),
        ({"encoded": [7]}, "image/encoded has the type int"),
        (
            NO_BOXES | {"class/label": [1]},
            r"a class of the whole picture \(image/class/label\), but no boxes",
        ),
        (
            NO_BOXES | {"bbox/xmin": [0.5]},
            "it has image/bbox/xmin, but no image/object/bbox/xmin",
        ),
        ({"encoded": []}, "the record has no picture"),
    ],
)
def test_records_of_the_wrong_kind_are_findings(changed, message, tmp_path):
    record_file(tmp_path / "train.record", features(filename=[b"good.jpg"]), features(**changed))
    found = read_dataset(tmp_path)
    assert [s.filename for s in found.samples] == ["good.jpg"]
    (finding,) = found.problems
    assert finding.code == "unusable-record"
    assert re.search(message, finding.what)
    assert not finding.what.startswith(finding.where)


def test_pixels_are_one_finding(tmp_path):
    pixels = {
        f"object_bbox_{name}": [value]
        for name, value in zip(("xmin", "xmax", "ymin", "ymax"), (50.0, 110.0, 30.0, 110.0), strict=True)
    }
    path = record_file(tmp_path / "train.record", features(**pixels), features(filename=[b"b.jpg"], **pixels))
    with pytest.raises(EmptyDatasetError) as caught:
        read_dataset(tmp_path)
    (finding,) = caught.value.problems
    assert (finding.severity, finding.code) == ("error", "wrong-unit")
    assert "2 pictures look like pixels, but TFRecord normalises them" in finding.what
    with pytest.raises(DataError, match="record 0: the coordinates of 1 picture look like pixels"):
        list(tfrecord.read_tfrecords(path))


def test_records_without_size_name_and_boxes(tmp_path):
    gray = features(encoded=[picture(150, 200, "PNG", "L")], filename=[])
    bare = {name: values for name, values in gray.items() if "object" not in name}
    record_file(tmp_path / "train.record", gray, bare)
    found = read_dataset(tmp_path)
    assert [(s.filename, s.height_px, s.width_px, len(s)) for s in found.samples] == [
        ("record.png", 150, 200, 1),
        ("record-2.png", 150, 200, 0),
    ]
    assert found.samples[0].boxes_px_xyxy[0].round(3).tolist() == [50, 30, 110, 110]


def test_slims_names_of_the_class(tmp_path):
    slim = {"object_class_text": [], "object_class_label": []}
    text = {"object/bbox/label_text": [b"face"], "object/bbox/label": [15]}
    record_file(tmp_path / "voc_2007_train_000.tfrecord", features(**slim, **text))
    (loaded,) = read_dataset(tmp_path).samples
    assert loaded.labels == ("face",)
    assert loaded.boxes_px_xyxy[0].round(3).tolist() == [50, 30, 110, 110]


@pytest.mark.parametrize("name", ["labelmap.pbtxt", "Faces_label_map.pbtxt", "label-map.pbtxt", "classes.pbtxt"])
def test_the_label_map_beside_names_the_numbers(name, tmp_path):
    record_file(
        tmp_path / "train.record",
        features(object_class_text=[]),
        features(object_class_text=[], object_class_label=[9]),
    )
    unnamed = read_dataset(tmp_path)
    assert [s.labels for s in unnamed.samples] == [("1",), ("9",)]
    assert "their numbers are used as names" in unnamed.notes[0]
    (tmp_path / name).write_text("item { id: 1 name: 'face' }")
    named = read_dataset(tmp_path)
    assert ([s.labels for s in named.samples], named.labels, named.notes) == ([("face",), ("9",)], ("face",), ())
    assert "class 9 is not in the label map" in next(p.what for p in named.problems if p.code == "class-number")


def test_a_label_map_that_cannot_be_read_is_a_finding(tmp_path):
    record_file(tmp_path / "train.record", features())
    (tmp_path / "label_map.pbtxt").write_text("item { id: 0 name: 'face' }")
    found = read_dataset(tmp_path)
    assert found.samples[0].labels == ("face",)
    (finding,) = found.problems
    assert (finding.severity, finding.where) == ("error", str(tmp_path / "label_map.pbtxt"))


def test_a_label_map_with_other_numbers_is_a_finding(tmp_path):
    record_file(tmp_path / "train.record", features(), features(filename=[b"b.jpg"]))
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'mask' } item { id: 2 name: 'face' }")
    found = read_dataset(tmp_path)
    assert {s.labels for s in found.samples} == {("face",)}
    (finding,) = found.problems
    assert finding.what == "class 1 is 'mask' in the label map, but the records call it 'face'."


def test_a_class_number_below_1_is_a_finding_once(tmp_path):
    zero = features(object_class_label=[0], object_class_text=[b"Face "])
    record_file(tmp_path / "train.record", zero, zero | {"image/filename": [b"b.jpg"]})
    (finding,) = read_dataset(tmp_path).problems
    assert "the class 'Face ' has the number 0, but numbers begin with 1" in finding.what


def test_folders_of_parts_with_a_label_map_in_each(tmp_path):
    for part in ("train", "valid", "test"):
        record_file(
            tmp_path / part / "Faces.tfrecord", features(filename=[f"{part}.jpg".encode()], object_class_text=[])
        )
        (tmp_path / part / "Faces_label_map.pbtxt").write_text("item { name: 'face' id: 1 }")
    found = read_dataset(tmp_path)
    assert found.parts == {"train.jpg": "train", "valid.jpg": "eval", "test.jpg": "test"}
    assert {s.labels for s in found.samples} == {("face",)}
    assert [s.filename for s in read_dataset(f"{tmp_path}@test").samples] == ["test.jpg"]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.mark.tensorflow
def test_tensorflow_reads_ours(tf, tmp_path):
    samples = [
        sample("a.jpg", [(3, 2, 9, 12), (1, 1, 20, 15)], ["cat", "dog"], ignore=[True, False]),
        sample("b.png", []),
        sample("g.jpg", image=picture(mode="L")),
        sample("c.jpg", image=picture(mode="CMYK")),
        sample("p.png", image=picture(format="PNG", mode="P")),
        sample("w.webp", image=picture(format="WEBP")),
        sample("t.jpg", [(0, 0, 5, 10)], height=30, width=20, image=rotated(6, 20, 30)),
    ]
    paths = tfrecord.write_tfrecords(samples, ["cat", "dog", "face"], tmp_path / "a.tfrecord", 2)
    spec = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/filename": tf.io.FixedLenFeature((), tf.string),
        "image/height": tf.io.FixedLenFeature((), tf.int64),
        "image/width": tf.io.FixedLenFeature((), tf.int64),
        "image/format": tf.io.FixedLenFeature((), tf.string),
        "image/object/class/label": tf.io.VarLenFeature(tf.int64),
        "image/object/class/text": tf.io.VarLenFeature(tf.string),
        "image/object/weight": tf.io.VarLenFeature(tf.float32),
    }
    spec |= {f"image/object/bbox/{n}": tf.io.VarLenFeature(tf.float32) for n in ("ymin", "xmin", "ymax", "xmax")}
    found = {}
    for raw in tf.data.TFRecordDataset([str(p) for p in paths]):
        item = tf.io.parse_single_example(raw, spec)
        found[item["image/filename"].numpy().decode()] = item
    assert set(found) == {s.filename for s in samples}
    for written in samples:
        item = found[written.filename]
        pixels = tf.io.decode_image(item["image/encoded"], channels=3).numpy()
        assert pixels.shape == (int(item["image/height"]), int(item["image/width"]), 3)
        assert len(item["image/object/class/label"].values) == len(written)
        if written.filename not in ("t.jpg", "c.jpg"):
            assert np.abs(pixels.astype(int) - images.decode_rgb(written.encoded())).mean() < 3
            box = [item[f"image/object/bbox/{n}"].values for n in ("ymin", "xmin", "ymax", "xmax")]
            np.testing.assert_allclose(np.stack(box, 1), written.boxes_yxyx, atol=1e-6)
    assert found["a.jpg"]["image/object/class/label"].values.numpy().tolist() == [1, 2]
    assert found["a.jpg"]["image/object/weight"].values.numpy().tolist() == [0, 1]


@pytest.mark.tensorflow
def test_we_read_tensorflows(tf, tmp_path):
    def feature(values):
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    content = picture(40, 50)
    features = {
        "image/height": [40],
        "image/width": [50],
        "image/encoded": [content],
        "image/format": [b"jpeg"],
        "image/filename": [b"x.jpg"],
        "image/source_id": [b"7"],
        "image/object/bbox/ymin": [0.25],
        "image/object/bbox/xmin": [0.5],
        "image/object/bbox/ymax": [0.75],
        "image/object/bbox/xmax": [1.0],
        "image/object/class/text": [b"face"],
        "image/object/class/label": [1],
        "image/object/difficult": [1],
        "image/object/group_of": [1],
        "image/object/is_crowd": [0],
        "image/object/weight": [0.5],
    }
    message = tf.train.Example(features=tf.train.Features(feature={n: feature(v) for n, v in features.items()}))
    path = str(tmp_path / "tf.record-00000-of-00001")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(message.SerializeToString())
    (loaded,) = read_dataset(path).samples
    assert loaded.image == content
    assert loaded.boxes_yxyx.tolist() == [[0.25, 0.5, 0.75, 1.0]]
    assert (loaded.labels, loaded.difficult[0], loaded.group_of[0], loaded.is_crowd[0], loaded.weight[0]) == (
        ("face",),
        True,
        True,
        False,
        0.5,
    )
    assert example.decode(message.SerializeToString(), "x").keys() == features.keys()


def test_dataset_of_records_uses_the_label_map_beside_it(tmp_path):
    content = example.encode(
        {
            "image/encoded": [picture()],
            "image/filename": [b"a.jpg"],
            "image/object/bbox/ymin": [0.0],
            "image/object/bbox/xmin": [0.0],
            "image/object/bbox/ymax": [1.0],
            "image/object/bbox/xmax": [1.0],
            "image/object/class/label": [2],
        }
    )
    with open(tmp_path / "train.record", "wb") as file:
        records.write_record(file, content)
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'cat' } item { id: 2 name: 'dog' }")
    found = read_dataset(tmp_path)
    assert found.samples[0].labels == ("dog",)
    assert found.labels == ("cat", "dog")
    assert found.parts == {"a.jpg": "train"}
    assert io.BytesIO(found.samples[0].image).read(2) == b"\xff\xd8"
    assert len(dataset(*found.samples)) == 1
