"""Weights from exported files, training checkpoints, TensorFlow's checkpoints and .npz."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mirilla.errors import MirillaError, ModelError
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.weights import load as weights
from mirilla.weights.arrays import save_safetensors
from mirilla.weights.export import weights_file
from mirilla.weights.tensorflow import load_checkpoint
from mirilla.weights.tensorflow_write import save_checkpoint

PREFIX = "data/odapi/ckpt_b24_step60/model.ckpt-60"


def test_a_tensorflow_checkpoint_is_read_to_the_bit(shared):
    found = load_checkpoint(shared / PREFIX)
    with np.load(shared / "data/odapi/ckpt60_values.npz") as file:
        assert set(found) == set(file.files)
        for name in file.files:
            assert found[name].dtype == file[name].dtype
            np.testing.assert_array_equal(found[name], file[name])


def test_moving_averages_are_what_the_original_exported(shared):
    found = weights.load_weights(shared / PREFIX)
    assert (found.step, found.averaged) == (60, True)
    with np.load(shared / "data/odapi/export_ckpt_values.npz") as file:
        for name, _, _ in architecture(ModelSpec()).variables():
            np.testing.assert_array_equal(found.variables[name], file[name])


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_any_of_its_names_will_do(shared, suffix):
    path = shared / (PREFIX + suffix)
    assert weights.load_weights(path).step == 60


def test_npz(shared):
    found = weights.load_weights(shared / "data/odapi/ckpt60_values.npz")
    assert (found.step, found.averaged) == (60, True)


def test_exported_weights_come_back(tmp_path, shared):
    pytest.importorskip("safetensors")
    with np.load(shared / "data/odapi/export_ckpt_values.npz") as file:
        values = dict(file)
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_file(ModelSpec(), values))
    found = weights.load_weights(path)
    assert not found.averaged
    assert set(found.variables) == {name for name, _, _ in architecture(ModelSpec()).variables()}
    for name, value in found.variables.items():
        np.testing.assert_array_equal(value, values[name])


def copied(shared, folder):
    for suffix in (".index", ".data-00000-of-00001"):
        target = folder / ("model.ckpt-60" + suffix)
        shutil.copyfile(shared / (PREFIX + suffix), target)
    return folder / "model.ckpt-60"


def spoil(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: p.with_name(p.name + ".data-00000-of-00001").unlink(), "No such file"),
        (lambda p: spoil(p.with_name(p.name + ".data-00000-of-00001"), 1000), "checksum of the variable"),
        (lambda p: spoil(p.with_name(p.name + ".index"), 100), "checksum is wrong"),
        (lambda p: p.with_name(p.name + ".index").write_bytes(b"x" * 100), "does not end as an index"),
        (lambda p: p.with_name(p.name + ".index").write_bytes(b""), "does not end as an index"),
    ],
)
def test_a_broken_tensorflow_checkpoint_is_named(shared, tmp_path, harm, message):
    prefix = copied(shared, tmp_path)
    harm(prefix)
    with pytest.raises(MirillaError, match=message):
        weights.load_weights(prefix)


def test_a_shorter_data_file_is_cut_short(shared, tmp_path):
    prefix = copied(shared, tmp_path)
    data = prefix.with_name("model.ckpt-60.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut short"):
        weights.load_weights(prefix)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.safetensors", None, "no such checkpoint"),
        ("x.npz", b"rubbish", "not a"),
        ("x.npz", b"PK\x03\x04rubbish", "not a"),
        ("x.safetensors", b"rubbish", "not a whole safetensors file"),
    ],
)
def test_what_holds_no_weights_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        weights.load_weights(path)


def test_npz_without_weights(tmp_path):
    np.savez(tmp_path / "x.npz", global_step=np.int64(3))
    with pytest.raises(ModelError, match="no weights"):
        weights.load_weights(tmp_path / "x.npz")


def test_the_newest_of_an_old_training_folder(shared, tmp_path):
    copied(shared, tmp_path)
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copyfile(
            shared / ("data/odapi/ckpt_b24_step0/model.ckpt-0" + suffix), tmp_path / f"model.ckpt-0{suffix}"
        )
    assert weights.load_newest_weights(tmp_path).step == 60
    with pytest.raises(ModelError, match="no checkpoint"):
        weights.load_newest_weights(tmp_path / "nothing")


def test_a_prefix_names_mirillas_checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    values = {"a/weights": np.ones((1, 2), np.float32), "global_step": np.array(9000, np.int64)}
    save_safetensors(tmp_path / "model.ckpt-9000.safetensors", values)
    found = weights.load_weights(tmp_path / "model.ckpt-9000")
    assert (found.step, found.path.name) == (9000, "model.ckpt-9000.safetensors")
    # TensorFlow's, with the same prefix: it is read by the name of one of its files
    save_checkpoint(tmp_path / "model.ckpt-9000", {"a/weights": np.zeros((1, 2), np.float32)})
    assert weights.load_weights(tmp_path / "model.ckpt-9000").variables["a/weights"].all()
    assert not weights.load_weights(tmp_path / "model.ckpt-9000.index").variables["a/weights"].any()
