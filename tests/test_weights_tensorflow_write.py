"""TensorFlow checkpoints that Mirilla writes: byte-identical to TensorFlow's own, and readable by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.weights import sstable
from mirilla.weights.tensorflow import load_checkpoint
from mirilla.weights.tensorflow_write import save_checkpoint, save_state

FILES = ("index", "data-00000-of-00001")


@pytest.mark.parametrize("step", [0, 60])
def test_bytes_equal_those_of_tensorflow_1(step, shared, tmp_path):
    original = shared / "data" / "odapi" / f"ckpt_b24_step{step}" / f"model.ckpt-{step}"
    prefix = tmp_path / original.name
    save_checkpoint(prefix, load_checkpoint(original))
    for suffix in FILES:
        assert Path(f"{prefix}.{suffix}").read_bytes() == Path(f"{original}.{suffix}").read_bytes()


def test_reads_back(tmp_path):
    variables = {
        "a/weights": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "a/weights/RMSProp": np.zeros((0, 4), np.float64),
        "global_step": np.array(7, np.int64),
        "ä": np.array([True, False]),
    }
    files = save_checkpoint(tmp_path / "model.ckpt", variables)
    assert [file.name for file in files] == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    found = load_checkpoint(tmp_path / "model.ckpt")
    assert set(found) == set(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape


def test_a_type_that_tensorflow_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="variable 'x' has the type datetime64"):
        save_checkpoint(tmp_path / "model.ckpt", {"x": np.zeros(2, "datetime64[s]")})
    assert list(tmp_path.iterdir()) == []


def test_state_names_the_newest(tmp_path):
    save_state(tmp_path, ["model.ckpt-1", "model.ckpt-2"])
    assert (tmp_path / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-2"\n'
        'all_model_checkpoint_paths: "model.ckpt-1"\n'
        'all_model_checkpoint_paths: "model.ckpt-2"\n'
    )


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=200), max_size=80), st.integers(0, 3))
def test_tables_of_any_keys_read_back(content, large):
    content |= {bytes([i]) * 3: bytes(150_000) for i in range(large)}  # more than one block
    entries = sorted(content.items())
    assert list(sstable.entries(sstable.table(entries))) == entries


@pytest.mark.tensorflow
def test_todays_tensorflow_reads_it(tmp_path):
    tf = pytest.importorskip("tensorflow")
    variables = {f"layer_{i}/weights": np.random.default_rng(i).normal(size=(3, i + 1)) for i in range(30)}
    save_checkpoint(tmp_path / "model.ckpt-5", variables)
    save_state(tmp_path, ["model.ckpt-5"])
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path)))
    assert set(reader.get_variable_to_shape_map()) == set(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)
