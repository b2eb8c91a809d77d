"""A wide network's weights in a narrower one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import helpers_checkpoint as handmade
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.weights import slicing
from mirilla.weights.restore import Options, restore

torch = pytest.importorskip("torch")

SCOPE = "FeatureExtractor/MobilenetV1/"


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape, _ in architecture(spec).variables()}


def base(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    return slicing.scoped(handmade.mobilenet(shapes(spec), seed), SCOPE)


def last_map(spec: ModelSpec, values: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """The output of Conv2d_13_pointwise by torch's network."""
    from mirilla.model.network import SsdNetwork

    network = SsdNetwork(spec).eval()
    full = network.get_weights() | {SCOPE + name: value for name, value in values.items()}
    network.set_weights(full)
    x = torch.from_numpy(image)
    with torch.no_grad():
        for entry, layer in zip(network.table.layers, network.layers, strict=True):
            x = layer(x)
            if entry.name == "Conv2d_13_pointwise":
                break
    return x.numpy()


WIDE = ModelSpec(depth_multiplier=0.25, min_depth=16, height_px=64, width_px=64)
NARROW = ModelSpec(depth_multiplier=0.125, min_depth=16, height_px=64, width_px=64)


def test_the_names_are_those_of_the_layer_table():
    table = [layer for layer in architecture(NARROW).layers if layer.is_base]
    assert len(slicing.base_names()) == 27 * 5
    assert set(slicing.base_names()) == {
        name.removeprefix(SCOPE)
        for layer in table
        for name in (
            layer.weights,
            *(layer.batch_norm(n) for n in ("gamma", "beta", "moving_mean", "moving_variance")),
        )
    }


def test_a_network_whose_further_channels_are_dead_gives_the_same_outputs():
    narrow, wide = base(NARROW, 1), base(WIDE, 2)
    rng = np.random.default_rng(3)
    kept = np.arange(3)  # where the narrow network's channels lie in the wide one
    for name in slicing.base_names():
        layer, _, variable = name.partition("/")
        if variable.endswith("weights"):
            inputs = kept
            if "depthwise" not in layer:
                size = wide[name].shape[3]
                kept = np.sort(rng.permutation(size)[: narrow[name].shape[3]])
                wide[name] = np.zeros_like(wide[name])
                wide[name][:, :, inputs[:, None], kept] = narrow[name]
            else:
                wide[name][:, :, inputs] = narrow[name]
        else:
            dead = np.setdiff1d(np.arange(len(wide[name])), kept)
            wide[name][kept] = narrow[name]
            if variable.endswith(("gamma", "beta")):
                wide[name][dead] = 0
    sliced, what = slicing.slice_base(wide, base(NARROW, 4))
    assert what == "channels sliced from 256 to 128 in the last layer"
    for name, value in narrow.items():
        np.testing.assert_array_equal(sliced[name], value, err_msg=name)
    image = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    cut = last_map(NARROW, sliced, image)
    np.testing.assert_allclose(cut, last_map(WIDE, wide, image)[:, kept], atol=1e-5)
    assert cut.std() > 0


def test_the_channels_that_matter_most_are_kept():
    """A hand-made stem of 32 filters for a network of 16: the scores are |gamma| |gamma'| |column|."""
    wide, narrow = base(ModelSpec(depth_multiplier=1.0)), base(ModelSpec(depth_multiplier=0.5))
    scores = np.random.default_rng(5).permutation(32) + 1.0
    wide["Conv2d_0/BatchNorm/gamma"] = np.where(scores % 2, -scores, scores).astype(np.float32)
    wide["Conv2d_1_depthwise/BatchNorm/gamma"] = np.full(32, -2, np.float32)
    column = np.zeros((1, 1, 32, 64), np.float32)
    column[..., 0] = 3
    column[0, 0, 7, 0] = 300  # its norm lifts channel 7 over all others
    scores[7] *= 100
    wide["Conv2d_1_pointwise/weights"] = column
    sliced, _ = slicing.slice_base(wide, narrow)
    best = np.sort(np.argsort(-scores)[:16])
    assert 7 in best
    np.testing.assert_array_equal(sliced["Conv2d_0/weights"], wide["Conv2d_0/weights"][..., best])
    np.testing.assert_array_equal(
        sliced["Conv2d_1_depthwise/depthwise_weights"],
        wide["Conv2d_1_depthwise/depthwise_weights"][:, :, best],
    )
    np.testing.assert_array_equal(
        sliced["Conv2d_1_depthwise/BatchNorm/moving_mean"],
        wide["Conv2d_1_depthwise/BatchNorm/moving_mean"][best],
    )


def test_a_stem_of_eight_fills_half_of_sixteen_and_changes_nothing():
    eight, sixteen = ModelSpec(min_depth=8, height_px=64, width_px=64), NARROW
    wide, fresh = base(eight, 1), base(sixteen, 2)
    sliced, _ = slicing.slice_base(wide, fresh)
    np.testing.assert_array_equal(sliced["Conv2d_0/weights"][..., :8], wide["Conv2d_0/weights"])
    np.testing.assert_array_equal(sliced["Conv2d_0/weights"][..., 8:], fresh["Conv2d_0/weights"][..., 8:])
    assert not sliced["Conv2d_1_pointwise/weights"][:, :, 8:, :8].any()
    image = np.random.default_rng(3).normal(size=(1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(last_map(sixteen, sliced, image), last_map(eight, wide, image), atol=1e-5)


@pytest.mark.parametrize("file", ["keras", "torch"])
def test_archives_of_other_libraries(shared, file):
    path = shared / f"weights/mobilenet_v1_025_imagenet_{file}.npz"
    with np.load(path) as archive:
        values = dict(archive)
    named = slicing.with_slim_names(values)
    quarter = ModelSpec(depth_multiplier=0.25, min_depth=8)
    expected = {f"MobilenetV1/{name}": value.shape for name, value in base(quarter).items()}
    assert {name: value.shape for name, value in named.items()} == expected
    first = named["MobilenetV1/Conv2d_5_pointwise/weights"]
    if file == "keras":
        np.testing.assert_array_equal(first, values["conv_pw_5/kernel"])
        np.testing.assert_array_equal(
            named["MobilenetV1/Conv2d_9_depthwise/BatchNorm/beta"], values["conv_dw_9_bn/beta"]
        )
    else:
        np.testing.assert_array_equal(first[0, 0].T, values["stage1.5.1.0.weight"][:, :, 0, 0])
        np.testing.assert_array_equal(
            named["MobilenetV1/Conv2d_12_depthwise/depthwise_weights"][1, 2, :, 0],
            values["stage3.0.0.0.weight"][:, 0, 1, 2],
        )
        np.testing.assert_array_equal(
            named["MobilenetV1/Conv2d_6_pointwise/BatchNorm/moving_variance"],
            values["stage2.0.1.1.running_var"],
        )


@pytest.mark.parametrize("file", ["keras", "torch"])
def test_a_training_starts_from_their_slices(shared, file):
    fresh = handmade.mobilenet(shapes(NARROW), 9)
    path = shared / f"weights/mobilenet_v1_025_imagenet_{file}.npz"
    options = Options(path, slice_channels=True)
    sliced = restore(fresh, options)
    line = sliced.summary()
    assert line.startswith("135 of 185 variables restored")
    assert "channels sliced from 256 to 128" in line
    assert "30 skipped (30 not in the checkpoint)" in line
    stem = slicing.with_slim_names(dict(np.load(path)))["MobilenetV1/Conv2d_0/weights"]
    np.testing.assert_array_equal(sliced.variables[f"{SCOPE}Conv2d_0/weights"][..., :8], stem)
    plain = restore(fresh, Options(path))  # without the option: what happens to fit
    assert 0 < len(plain.plan.restored) < 40
    assert "fine_tune_slice_channels" in plain.summary()
    assert plain.variables[f"{SCOPE}Conv2d_0/weights"] is not stem


def test_a_wider_detector_is_sliced_too(tmp_path):
    wide = handmade.mobilenet(shapes(WIDE), 1)
    np.savez(tmp_path / "wide.npz", **wide)
    fresh = handmade.mobilenet(shapes(NARROW), 2)
    options = Options(Path(tmp_path / "wide.npz"), "detection", slice_channels=True)
    restored = restore(fresh, options)
    assert len(restored.plan.restored) == 135
    sliced, _ = slicing.slice_base(slicing.scoped(wide, SCOPE), slicing.scoped(fresh, SCOPE))
    for name, value in sliced.items():
        np.testing.assert_array_equal(restored.variables[SCOPE + name], value)
