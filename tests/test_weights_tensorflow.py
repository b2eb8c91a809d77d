"""TensorFlow's checkpoint formats by hand-written files: shards, V1, and what is left to TensorFlow."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers_checkpoint as handmade
from mirilla.errors import MirillaError, ModelError
from mirilla.weights import load as weights
from mirilla.weights.tensorflow import load_checkpoint

VALUES = {
    "FeatureExtractor/MobilenetV1/Conv2d_0/weights": np.arange(48, dtype="f4").reshape(1, 4, 3, 4) / 7,
    "FeatureExtractor/MobilenetV1/Conv2d_0/BatchNorm/gamma": np.array([1, -2, 3.5], "f4"),
    "a/double": np.array([[1e30, -1.5]], "f8"),
    "a/flags": np.array([True, False]),
    "a/empty": np.zeros((0, 3), "f4"),
    "global_step": np.array(870894, "i8"),
    "minus": np.array([-1, 2**31 - 1], "i4"),
}


def same(found, values):
    assert set(found) == set(values)
    for name, value in values.items():
        assert found[name].dtype == np.asarray(value).dtype, name
        assert found[name].shape == np.shape(value), name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_v2(tmp_path, shards):
    prefix = handmade.write_v2(tmp_path / "model.ckpt-870894", VALUES, shards=shards)
    same(load_checkpoint(prefix), VALUES)
    assert weights.load_variables(prefix)[1] == prefix
    assert weights.load_weights(prefix).step == 870894


def test_v1(tmp_path):
    path = handmade.write_v1(tmp_path / "model.ckpt-870894", VALUES)
    same(load_checkpoint(path), VALUES)
    found = weights.load_weights(path)
    assert (found.step, found.path, found.averaged) == (870894, path, False)


def test_v1_in_shards(tmp_path):
    names = sorted(VALUES)
    for i, part in enumerate((names[:2], names[2:])):
        handmade.write_v1(tmp_path / f"model.ckpt-{i:05d}-of-00002", {name: VALUES[name] for name in part})
    same(load_checkpoint(tmp_path / "model.ckpt"), VALUES)
    assert weights.load_variables(tmp_path / "model.ckpt")[1] == tmp_path / "model.ckpt"


@given(
    st.dictionaries(
        st.text("abc/_", min_size=1, max_size=8),
        st.lists(st.floats(width=32, allow_nan=False), max_size=12),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_written_is_read(tmp_path_factory, rows, shards):
    folder = tmp_path_factory.mktemp("checkpoint")
    values = {name: np.array(row, "f4") for name, row in rows.items()}
    same(load_checkpoint(handmade.write_v2(folder / "two", values, shards=shards)), values)
    same(load_checkpoint(handmade.write_v1(folder / "one", values)), values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: handmade.write_v2(p, VALUES, compression=1), "snappy compression"),
        (lambda p: handmade.write_v2(p, VALUES, big_endian=True), "big-endian"),
        (lambda p: handmade.write_v2(p, VALUES, sliced="minus"), "'minus' is stored in slices"),
        (lambda p: handmade.write_v1(p, VALUES, sliced="minus"), "'minus' is stored in slices"),
    ],
)
def test_what_only_tensorflow_reads_is_said(tmp_path, monkeypatch, make, message):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    prefix = make(tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(prefix)
    assert "mirilla[tensorflow]" in caught.value.remedy


def broken_cases():
    def v2(folder):
        return handmade.write_v2(folder / "model.ckpt-5", VALUES)

    def index(folder):
        return v2(folder).with_name("model.ckpt-5.index")

    def cut(path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        return path

    def v1_cut(folder):
        path = handmade.write_v1(folder / "model.ckpt-5", VALUES)
        content = path.read_bytes()
        path.write_bytes(content[:100] + content[200:])  # its end is right, its middle is gone
        return path

    def without(folder, suffix):
        v2(folder).with_name("model.ckpt-5" + suffix).unlink()
        return folder

    return {
        "nothing there": (lambda f: f / "model.ckpt-1", "no such checkpoint"),
        "the sample's blank": (lambda f: f / "PATH_TO_BE_CONFIGURED/model.ckpt", "no such checkpoint"),
        "a folder": (lambda f: v2(f).parent, "a folder"),
        "an index cut short": (lambda f: cut(index(f), 300), "does not end as an index"),
        "an index without a middle": (
            lambda f: (index(f).write_bytes((c := index(f).read_bytes())[:60] + c[90:]), f / "model.ckpt-5")[1],
            "checksum|cut short",
        ),
        "an empty index": (lambda f: cut(index(f), 0), "does not end as an index"),
        "data cut short": (
            lambda f: cut(v2(f).with_name("model.ckpt-5.data-00000-of-00001"), 40),
            "cut short",
        ),
        "data missing": (lambda f: without(f, ".data-00000-of-00001") / "model.ckpt-5", "No such file"),
        "index missing": (lambda f: without(f, ".index") / "model.ckpt-5.data-00000-of-00001", "is missing"),
        "TensorFlow 2": (
            lambda f: handmade.write_v2(f / "ckpt-0", {"model/gamma/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3, "f4")}),
            "object-based checkpoint of TensorFlow 2",
        ),
        "V1 without a middle": (v1_cut, "checksum|cut short"),
        "V1 without a file": (
            lambda f: handmade.write_v1(f / "model.ckpt-00000-of-00002", VALUES).with_name("model.ckpt"),
            "1 whole files, not 2",
        ),
        "wrong magic": (lambda f: (p := f / "model.ckpt", p.write_bytes(b"\0" * 99))[0], "not a checkpoint"),
        "a text": (
            lambda f: (p := f / "checkpoint", p.write_text("model_checkpoint_path: 'x'"))[0],
            "not a checkpoint",
        ),
        "not a graph": (lambda f: (p := f / "graph.pb", p.write_bytes(b"\xff" * 99))[0], "graph"),
        "not safetensors": (
            lambda f: (p := f / "a.safetensors", p.write_bytes(b"\xff" * 99))[0],
            "not a whole safetensors",
        ),
        "not an archive": (lambda f: (p := f / "a.npz", p.write_bytes(b"PK\x03\x04"))[0], "not a"),
    }


BROKEN = broken_cases()


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_broken_checkpoint_is_named(tmp_path, case):
    make, message = BROKEN[case]
    path = make(tmp_path)
    with pytest.raises(MirillaError, match=message) as caught:
        weights.load_variables(path)
    assert caught.value.remedy
    assert str(tmp_path) in caught.value.what


def test_a_folder_names_what_is_in_it(tmp_path):
    for step in (7, 30):
        handmade.write_v2(tmp_path / f"model.ckpt-{step}", VALUES)
    with pytest.raises(ModelError) as caught:
        weights.load_variables(tmp_path)
    assert caught.value.remedy == "Name one in it: model.ckpt-30, model.ckpt-7."


def test_raw_or_averaged(tmp_path):
    name = "Conv2d_0/weights"
    values = {name: np.zeros(2, "f4"), f"{name}/ExponentialMovingAverage": np.ones(2, "f4")}
    prefix = handmade.write_v2(tmp_path / "model.ckpt-1", values)
    assert weights.load_weights(prefix).variables[name].tolist() == [1, 1]
    raw = weights.load_weights(prefix, averages=False)
    assert (raw.variables[name].tolist(), raw.averaged) == ([0, 0], False)


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("sharded", [False, True])
def test_what_tensorflow_writes(tmp_path, version, sharded):
    tf = pytest.importorskip("tensorflow").compat.v1
    rng = np.random.default_rng(0)
    values = {f"scope/layer_{i}/weights": rng.normal(size=(3, 3, i + 1, 2)).astype("f4") for i in range(40)}
    values["global_step"] = np.array(870894, "i8")
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=value) for name, value in values.items()]
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(variables, sharded=sharded, write_version=getattr(tf.train.SaverDef, version))
        prefix = saver.save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    path = tmp_path / "model.ckpt" if "?" in prefix or "-of-" in prefix else prefix
    same(load_checkpoint(path), values)
    same(weights.load_variables(path)[0], values)


@pytest.mark.tensorflow
def test_slices_are_read_with_tensorflow(tmp_path):
    tf = pytest.importorskip("tensorflow").compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable(
            "table", initializer=tf.ones((6, 2)), partitioner=tf.fixed_size_partitioner(3), use_resource=False
        )
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    same(load_checkpoint(prefix), {"table": np.ones((6, 2), "f4")})
