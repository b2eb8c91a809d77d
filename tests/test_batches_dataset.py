"""The training set's records are read once, and each picture decoded once, unless files have changed."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers_distributed import small_pipeline
from mirilla import files
from mirilla.batches import dataset, pictures
from mirilla.config.to_spec import model_spec
from mirilla.data import records, tfrecord
from mirilla.errors import DataError
from mirilla.labels import LabelMap, save_label_map

LONG_AGO_S = 10**9


@pytest.fixture
def pipeline(tmp_path):
    result = small_pipeline(tmp_path)
    os.utime(tmp_path / "train.tfrecord", (LONG_AGO_S, LONG_AGO_S))
    return result


@pytest.fixture
def work(monkeypatch):
    """What was done: 'read' all records of a file, 'one' record, 'hash' a file, 'decode' a picture."""
    found: list[str] = []

    def counted(module, name, what):
        original = getattr(module, name)

        def call(*arguments):
            found.append(what)
            return original(*arguments)

        monkeypatch.setattr(module, name, call)

    counted(records, "read_records", "read")
    counted(records, "read_content", "one")
    counted(files, "sha256", "hash")
    counted(pictures, "decode_rgb", "decode")
    return found


def opened(pipeline, tmp_path):
    return dataset.open_training_set(pipeline, model_spec(pipeline), tmp_path / "cache")


def same(first, second):
    assert first.key == second.key
    for name in ("boxes_yxyx", "classes", "weights", "ignore", "example"):
        mine, theirs = getattr(first.objects, name), getattr(second.objects, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    for i in range(len(first.pictures)):
        np.testing.assert_array_equal(first.pictures[i], second.pictures[i])


def boxes(data, number):
    return data.objects.of_examples(np.array([number])).boxes_yxyx


def test_records_are_read_once(pipeline, tmp_path, work):
    first = opened(pipeline, tmp_path)
    assert work == ["read"]
    content = (tmp_path / "train.tfrecord").read_bytes()
    assert first.key == hashlib.sha256(hashlib.sha256(content).hexdigest().encode()).hexdigest()
    first.pictures.complete()
    assert sorted(work) == ["decode"] * 10 + ["one"] * 10 + ["read"]
    work.clear()
    same(first, opened(pipeline, tmp_path))
    assert work == []


def test_pictures_decoded_before_a_stop_are_kept(pipeline, tmp_path, work):
    first = opened(pipeline, tmp_path)
    for i in (3, 8):
        first.pictures[i]
    work.clear()
    second = opened(pipeline, tmp_path)
    assert second.pictures.decoded == 2
    same(first, second)
    assert work == ["one", "decode"] * 8


def test_a_touched_file_is_hashed_once(pipeline, tmp_path, work):
    first = opened(pipeline, tmp_path)
    os.utime(tmp_path / "train.tfrecord", (LONG_AGO_S + 5, LONG_AGO_S + 5))
    work.clear()
    second = opened(pipeline, tmp_path)
    assert work == ["hash"]
    same(first, second)
    work[:] = ["hash"]
    same(first, opened(pipeline, tmp_path))
    assert work == ["hash"]


def test_a_file_changed_just_now_is_not_trusted(pipeline, tmp_path, work):
    os.utime(tmp_path / "train.tfrecord")
    opened(pipeline, tmp_path)
    work.clear()
    opened(pipeline, tmp_path)
    assert work == ["hash"]


def test_other_records_of_the_same_length(pipeline, tmp_path):
    first = opened(pipeline, tmp_path)
    first.pictures.complete()
    path = tmp_path / "train.tfrecord"
    contents = list(records.read_records(path))
    with open(path, "wb") as file:
        for content in contents[::-1]:
            records.write_record(file, content)
    os.utime(path, (LONG_AGO_S + 5, LONG_AGO_S + 5))
    second = opened(pipeline, tmp_path)
    assert second.key != first.key
    np.testing.assert_array_equal(second.pictures[0], first.pictures[9])
    np.testing.assert_array_equal(boxes(second, 0), boxes(first, 9))


def test_another_label_map_reads_boxes_but_decodes_nothing(pipeline, tmp_path, work):
    opened(pipeline, tmp_path)
    work.clear()
    save_label_map(tmp_path / "label_map.pbtxt", LabelMap.from_names(["circle", "square"]))
    pipeline.model.ssd.num_classes = 2
    assert opened(pipeline, tmp_path).objects.of_examples(np.zeros(1, np.int64)).classes.tolist() == [1, 1, 1]
    assert work == ["read"]
    opened(pipeline, tmp_path)
    assert work == ["read"]
    save_label_map(tmp_path / "label_map.pbtxt", LabelMap.from_names(["circle"]))
    with pytest.raises(DataError, match="'square' is not in the label map"):
        opened(pipeline, tmp_path)


@pytest.mark.parametrize("name", [pictures.PICTURES, pictures.SUMS, dataset.ARRAYS, dataset.INDEX])
@pytest.mark.parametrize("how", ["changed", "cut short", "gone"])
def test_a_damaged_cache_is_made_again(pipeline, tmp_path, work, capsys, name, how):
    first = opened(pipeline, tmp_path)
    expected = [first.pictures[i].copy() for i in range(10)]
    path = tmp_path / "cache" / name
    content = bytearray(path.read_bytes())
    path.unlink()  # the mapped file stays what it is
    if how != "gone":
        content[len(content) // 2] ^= 64
        path.write_bytes(content[: len(content) // 2] if how == "cut short" else content)
    work.clear()
    capsys.readouterr()
    second = opened(pipeline, tmp_path)
    for i in range(10):
        np.testing.assert_array_equal(second.pictures[i], expected[i])
    only_one = how == "changed" and name in (pictures.PICTURES, pictures.SUMS)
    assert work.count("decode") == (1 if only_one else 10)
    if how == "changed":
        assert "decoded again" in capsys.readouterr().out
    same(first, second)


def test_more_pictures_than_memory_are_reported(pipeline, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "memory_free", lambda: 1000)
    assert len(opened(pipeline, tmp_path).pictures) == 10
    assert "GB of memory are free" in capsys.readouterr().out


def test_more_classes_than_the_label_map_are_a_warning(pipeline, tmp_path, capsys):
    opened(pipeline, tmp_path)
    assert "num_classes" not in capsys.readouterr().err
    pipeline.model.ssd.num_classes = 90
    opened(pipeline, tmp_path)
    assert "model.ssd.num_classes is 90" in capsys.readouterr().err.replace("\n", " ")


def test_hashing_records(tmp_path):
    path = tmp_path / "some.tfrecord"
    with open(path, "wb") as file:
        for content in (b"one", b"", b"three"):
            records.write_record(file, content)
    digest = hashlib.sha256()
    assert list(records.read_records(path, digest)) == [b"one", b"", b"three"]
    assert digest.hexdigest() == files.sha256(path)


def test_every_nth_picture_hashes_all_records(pipeline, tmp_path):
    whole = opened(pipeline, tmp_path)
    pipeline.train_input_reader.sample_1_of_n_examples = 4
    some = opened(pipeline, tmp_path)
    assert len(some) == len(set(some.objects.example.tolist())) == 3
    assert some.key == f"{whole.key}/4"
    assert len(list(tfrecord.read_tfrecords(tmp_path / "train.tfrecord"))) == 10
