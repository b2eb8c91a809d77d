"""Samples as tf.train.Example messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_data import picture, rotated, sample
from mirilla.data import images
from mirilla.data.sample import Sample
from mirilla.data.tf_example import from_example, to_example
from mirilla.errors import DataError
from mirilla.protos import example


def test_the_features_are_the_old_scripts(tmp_path):
    made = sample("dir/a.jpg", [(3, 2, 9, 12), (0, 0, 30, 20)], ["cat", "dog"])
    found = example.decode(to_example(made, {"cat": 1, "dog": 2}), "here")
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
    assert found["image/encoded"] == [made.image]
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
    made = sample("a.jpg", [(0, 0, 5, 10)], height=30, width=20, image=content)
    found = example.decode(to_example(made, {"face": 1}), "here")
    assert (found["image/height"], found["image/width"], found["image/orientation"]) == ([20], [30], [6])
    # the upper left corner as shown is the lower left corner as stored
    box = [found[f"image/object/bbox/{n}"][0] for n in ("ymin", "xmin", "ymax", "xmax")]
    np.testing.assert_allclose(box, [15 / 20, 0, 1, 10 / 30], atol=1e-7)


@pytest.mark.parametrize(("declared", "turned"), [((20, 30), True), ((30, 20), False)])
def test_foreign_records_of_turned_photos_are_read_by_their_size(declared, turned):
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
        ({"image/encoded": []}, r"no picture \(image/encoded\)"),
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
