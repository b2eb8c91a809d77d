"""TFRecord files: framing, messages, samples, and TensorFlow as the second reader and writer."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_data import dataset, picture, rotated, sample
from mirilla.data import images, read_dataset, records, tfrecord
from mirilla.data.examples import from_example, to_example
from mirilla.data.output import safe_name
from mirilla.data.sample import Sample
from mirilla.errors import DataError, MirillaError
from mirilla.protos import example


def test_masked_crc_of_the_published_vector():
    # CRC-32C of "123456789" is 0xe3069283; rotated right by 15 and shifted by 0xa282ead8:
    assert records.masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def _file(tmp_path, *contents):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        for content in contents:
            records.write_record(file, content)
    return path


@given(st.lists(st.binary(max_size=300), max_size=6))
@settings(max_examples=30, deadline=None)
def test_records_round_trip(tmp_path_factory, contents):
    path = _file(tmp_path_factory.mktemp("r"), *contents)
    assert list(records.read_records(path)) == contents


def test_every_cut_and_every_flipped_byte_is_found(tmp_path):
    path = _file(tmp_path, b"first", b"second")
    whole = path.read_bytes()
    first = 16 + len(b"first")
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        if cut == first:
            assert list(records.read_records(path)) == [b"first"]
            continue
        with pytest.raises(DataError, match=rf"a\.tfrecord: record {int(cut > first)} "):
            list(records.read_records(path))
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=rf"record {int(at >= first)} "):
            list(records.read_records(path))


def test_a_huge_length_reads_nothing(tmp_path):
    head = struct.pack("<Q", 2**62)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(head + struct.pack("<I", records.masked_crc32c(head)) + b"x" * 20)
    with pytest.raises(DataError, match="the file ends after"):
        list(records.read_records(path))


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


def _features():
    name = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    value = st.one_of(
        st.lists(st.binary(max_size=9), min_size=1, max_size=4),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
        st.just([]),
    )
    return st.dictionaries(name, value, max_size=5)


@given(_features())
@settings(max_examples=60, deadline=None)
def test_example_messages_round_trip(features):
    content = example.encode(features)
    assert example.decode(content, "here") == features
    assert example.encode(dict(reversed(features.items()))) == content


def test_example_bytes_by_hand():
    # Example{features(1)}{feature(1){key(1) "a", value(2){int64_list(3){value(1) packed [5]}}}}
    assert example.encode({"a": [5]}) == bytes.fromhex("0a0c 0a0a 0a0161 1205 1a03 0a0105".replace(" ", ""))


def test_the_features_are_the_old_scripts(tmp_path):
    one = sample("dir/a.jpg", [(3, 2, 9, 12), (0, 0, 30, 20)], ["cat", "dog"])
    found = example.decode(to_example(one, {"cat": 1, "dog": 2}), "here")
    assert set(found) == {
        "image/height",
        "image/width",
        "image/filename",
        "image/source_id",
        "image/encoded",
        "image/format",
        "image/object/bbox/xmin",
        "image/object/bbox/xmax",
        "image/object/bbox/ymin",
        "image/object/bbox/ymax",
        "image/object/class/text",
        "image/object/class/label",
    }
    assert found["image/height"] == [20]
    assert found["image/width"] == [30]
    assert found["image/format"] == [b"jpeg"]
    assert found["image/encoded"] == [one.image]
    assert found["image/object/class/text"] == [b"cat", b"dog"]
    assert found["image/object/class/label"] == [1, 2]
    np.testing.assert_allclose(found["image/object/bbox/xmin"], [0.1, 0], atol=1e-7)
    np.testing.assert_allclose(found["image/object/bbox/ymax"], [0.6, 1], atol=1e-7)


_unit = st.floats(0, 1, width=32)


@given(
    st.lists(
        st.tuples(
            _unit,
            _unit,
            _unit,
            _unit,
            st.sampled_from(["a", "b c", "ä"]),
            st.integers(0, 15),
            st.floats(0, 4, width=32),
        ),
        max_size=5,
    ),
    st.sampled_from(range(1, 9)),
)
@settings(max_examples=60, deadline=None)
def test_samples_round_trip(rows, orientation):
    boxes = np.array([r[:4] for r in rows]).reshape(-1, 4)
    bits = np.array([r[5] for r in rows], int)
    flags = {n: (bits >> i & 1).astype(bool) for i, n in enumerate(("ignore", "difficult", "group_of", "is_crowd"))}
    content = rotated(orientation)
    height, width = images.size_of(content)
    weight = np.where(flags["ignore"], 1.0, [r[6] for r in rows])
    before = Sample(content, "a.jpg", height, width, boxes, tuple(r[4] for r in rows), weight=weight, **flags)
    after = from_example(to_example(before, {"a": 1, "b c": 2, "ä": 3}), "here")
    np.testing.assert_allclose(after.boxes_yxyx, before.boxes_yxyx, atol=2e-7)
    assert (after.labels, after.height_px, after.width_px) == (before.labels, height, width)
    assert after.image == before.image
    for name in flags:
        np.testing.assert_array_equal(getattr(after, name), flags[name])
    np.testing.assert_allclose(after.weight, weight)


def test_a_turned_photo_is_stored_as_tensorflow_sees_it():
    content = rotated(6, 20, 30)  # stored 20 high, 30 wide; shown 30 high, 20 wide
    one = sample("a.jpg", [(0, 0, 5, 10)], height=30, width=20, image=content)
    found = example.decode(to_example(one, {"face": 1}), "here")
    assert (found["image/height"], found["image/width"], found["image/orientation"]) == ([20], [30], [6])
    # the upper left corner as shown is the lower left corner as stored
    box = [found[f"image/object/bbox/{n}"][0] for n in ("ymin", "xmin", "ymax", "xmax")]
    np.testing.assert_allclose(box, [15 / 20, 0, 1, 10 / 30], atol=1e-7)


@pytest.mark.parametrize(("declared", "turned"), [((20, 30), True), ((30, 20), False)])
def test_foreign_records_of_turned_photos_go_by_their_size(declared, turned):
    content = example.encode(
        {
            "image/encoded": [rotated(6, 20, 30)],
            "image/filename": [b"a.jpg"],
            "image/height": [declared[0]],
            "image/width": [declared[1]],
            "image/object/bbox/ymin": [0.75],
            "image/object/bbox/xmin": [0.0],
            "image/object/bbox/ymax": [1.0],
            "image/object/bbox/xmax": [0.5],
            "image/object/class/text": [b"face"],
        }
    )
    box = from_example(content, "here").boxes_yxyx[0].tolist()
    assert box == ([0, 0, 0.5, 0.25] if turned else [0.75, 0, 1, 0.5])


def test_text_wins_over_label_and_the_map_names_numbers():
    base = {
        "image/encoded": [picture()],
        "image/filename": [b"a.jpg"],
        "image/object/bbox/ymin": [0.0],
        "image/object/bbox/xmin": [0.0],
        "image/object/bbox/ymax": [1.0],
        "image/object/bbox/xmax": [1.0],
        "image/object/class/label": [2],
    }
    both = example.encode({**base, "image/object/class/text": [b"cat"]})
    assert from_example(both, "x", {2: "dog"}).labels == ("cat",)
    assert from_example(example.encode(base), "x", {2: "dog"}).labels == ("dog",)
    assert from_example(example.encode(base), "x").labels == ("2",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image/encoded": []}, "no image/encoded"),
        ({"image/encoded": [b"zzz"]}, "not a picture"),
        ({"image/object/bbox/xmax": []}, "must have the same length"),
        ({"image/object/class/text": [b"a", b"b"]}, "1 boxes but 2 labels"),
        ({"image/object/difficult": [1, 0]}, "2 values for 1 boxes"),
        ({"image/height": [b"x"]}, "image/height has the type bytes"),
    ],
)
def test_unusable_records_name_the_record(change, message):
    features = example.decode(to_example(sample(), {"face": 1}), "x") | change
    with pytest.raises(DataError, match=message) as caught:
        from_example(example.encode(features), "f.tfrecord, record 7")
    assert "f.tfrecord, record 7" in str(caught.value)


def test_wrong_label_writes_nothing(tmp_path):
    with pytest.raises(DataError, match="'dog' is not in the label map"):
        tfrecord.write_tfrecords([sample(), sample("b.jpg", labels=["dog"])], ["face"], tmp_path / "a.tfrecord", 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no picture"):
        tfrecord.write_tfrecords([], ["face"], tmp_path / "a.tfrecord")
    assert not list(tmp_path.iterdir())


def test_broken_file_in_a_data_set_keeps_what_stands_before(tmp_path):
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
    for one, t in zip(found.samples, truth, strict=True):
        assert (one.height_px, one.width_px) == (t["h"], t["w"])
        assert set(one.labels) == {"face"}
        np.testing.assert_allclose(one.boxes_px_xyxy, t["boxes_xyxy"], atol=1e-3)


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import errno

    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_record", full)
    with pytest.raises(MirillaError, match="No space left") as caught:
        tfrecord.write_tfrecords([sample()], ["face"], tmp_path / "a.tfrecord")
    assert "Free some space" in caught.value.remedy
    assert not list(tmp_path.iterdir())


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
    for one in samples:
        item = found[one.filename]
        pixels = tf.io.decode_image(item["image/encoded"], channels=3).numpy()
        assert pixels.shape == (int(item["image/height"]), int(item["image/width"]), 3)
        assert len(item["image/object/class/label"].values) == len(one)
        if one.filename not in ("t.jpg", "c.jpg"):
            assert np.abs(pixels.astype(int) - images.decode_rgb(one.encoded())).mean() < 3
            box = [item[f"image/object/bbox/{n}"].values for n in ("ymin", "xmin", "ymax", "xmax")]
            np.testing.assert_allclose(np.stack(box, 1), one.boxes_yxyx, atol=1e-6)
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
    (one,) = read_dataset(path).samples
    assert one.image == content
    assert one.boxes_yxyx.tolist() == [[0.25, 0.5, 0.75, 1.0]]
    assert (one.labels, one.difficult[0], one.group_of[0], one.is_crowd[0], one.weight[0]) == (
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
