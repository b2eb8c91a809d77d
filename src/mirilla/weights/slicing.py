"""Starting a narrow MobileNet v1 from a wide one's weights.

Each pointwise layer keeps the channels that matter most for the next block, by this score: |gamma| * |gamma of the
next depthwise layer| * norm of the next pointwise layer's weights for the channel. Batch norm, depthwise kernels and
the next layer's inputs are sliced accordingly. If the narrow network has more channels than the wide one (min_depth
gives the sample's stem 16 filters, a 0.25 network has 8), the wide one's come first and the others keep their initial
values. The next pointwise layer then has weights of zero for these, so that the network starts by computing what the
slices compute.

Names are relative to 'MobilenetV1/': 'Conv2d_0/weights', 'Conv2d_1_depthwise/BatchNorm/gamma', ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError

BLOCKS = 13
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_TORCH = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_TORCH_STAGES = {"stage1": 0, "stage2": 6, "stage3": 12}  # block number of the stage's first entry

Arrays = Mapping[str, NDArray]


def scoped(values: Arrays, prefix: str) -> dict[str, NDArray]:
    """The base network's variables that have this prefix, under names without it; no slots or averages."""
    names = set(base_names())
    relative = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    return {name: value for name, value in relative.items() if name in names}


def base_names() -> list[str]:
    """The names of the base network's variables, layer by layer."""
    kernels = ["Conv2d_0/weights"]
    for i in range(1, BLOCKS + 1):
        kernels += [f"Conv2d_{i}_depthwise/depthwise_weights", f"Conv2d_{i}_pointwise/weights"]
    return [
        name
        for kernel in kernels
        for name in (kernel, *(f"{kernel.partition('/')[0]}/BatchNorm/{variable}" for variable in _NORM))
    ]


def slice_base(wide: Arrays, fresh: Arrays, where: str = "checkpoint") -> tuple[dict[str, NDArray], str]:
    """A narrow base network's variables, cut from a wide one's.

    Args:
        wide: the wide network's variables (`base_names`), HWIO kernels.
        fresh: the narrow network's initial variables.
        where: the file, for messages.

    Returns:
        The narrow network's variables, and a description of the slicing.

    Raises:
        ModelError: a variable is missing, or the two are not one architecture at two widths.
    """
    missing = [name for name in base_names() if name not in wide]
    if missing:
        raise ModelError(
            f"{where}: {len(missing)} of the base network's variables are missing, '{missing[0]}' first; "
            "channels cannot be sliced.",
            "Give a checkpoint of a complete MobileNet v1, or set fine_tune_slice_channels: false.",
        )
    _check(wide, fresh, where)
    keep = _most_important(_importance(wide, "Conv2d_0", 1), _width(fresh, "Conv2d_0"))
    result = _layer(wide, fresh, "Conv2d_0", "weights", np.arange(3), keep)
    for i in range(1, BLOCKS + 1):
        result |= _depthwise(wide, fresh, f"Conv2d_{i}_depthwise", keep)
        name = f"Conv2d_{i}_pointwise"
        chosen = _most_important(_importance(wide, name, i + 1), _width(fresh, name))
        result |= _layer(wide, fresh, name, "weights", keep, chosen)
        keep = chosen
    last = f"Conv2d_{BLOCKS}_pointwise/weights"
    return result, f"channels sliced from {wide[last].shape[3]} to {fresh[last].shape[3]} in the last layer"


def _check(wide: Arrays, fresh: Arrays, where: str) -> None:
    for name in base_names():
        a, b = wide[name].shape, fresh[name].shape
        kernels_differ = len(b) == 4 and (len(a) != 4 or a[:2] != b[:2])
        if len(a) != len(b) or kernels_differ:
            raise ModelError(
                f"{where}: '{name}' has shape {a}. It differs from the network's {b} in more than its width.",
                "Give a checkpoint of a MobileNet v1.",
            )
        if not np.isfinite(wide[name]).all():
            raise ModelError(
                f"{where}: '{name}' contains a value that is not a finite number.",
                "Its training had diverged: start from an earlier checkpoint.",
            )


def _importance(wide: Arrays, layer: str, next_block: int) -> NDArray:
    """A score for each output channel of a layer: how much it matters to the next block."""
    scores = np.abs(np.asarray(wide[f"{layer}/BatchNorm/gamma"], np.float64))
    if next_block <= BLOCKS:
        scores *= np.abs(wide[f"Conv2d_{next_block}_depthwise/BatchNorm/gamma"])
        kernel = wide[f"Conv2d_{next_block}_pointwise/weights"][0, 0]  # (in, out)
        scores *= np.linalg.norm(kernel, axis=1)
    return scores


def _most_important(scores: NDArray, count: int) -> NDArray:
    """The `count` channels with the highest scores, in their order; -1 for channels that keep their initial values."""
    if count >= len(scores):
        return np.concatenate([np.arange(len(scores)), np.full(count - len(scores), -1)])
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _layer(
    wide: Arrays, fresh: Arrays, layer: str, kernel: str, inputs: NDArray, outputs: NDArray
) -> dict[str, NDArray]:
    """A convolution and its batch norm; `inputs` and `outputs` are the channels of the wide one to take."""
    name = f"{layer}/{kernel}"
    old, new = wide[name], np.array(fresh[name], np.float32)
    real_in, real_out = inputs >= 0, outputs >= 0
    new[:, :, ~real_in, :] = 0
    rows, columns = np.flatnonzero(real_in), np.flatnonzero(real_out)
    new[:, :, rows[:, None], columns] = old[:, :, inputs[real_in][:, None], outputs[real_out]]
    return {name: new, **_norm(wide, fresh, layer, outputs)}


def _depthwise(wide: Arrays, fresh: Arrays, layer: str, channels: NDArray) -> dict[str, NDArray]:
    name = f"{layer}/depthwise_weights"
    new, real = np.array(fresh[name], np.float32), channels >= 0
    new[:, :, real] = wide[name][:, :, channels[real]]
    return {name: new, **_norm(wide, fresh, layer, channels)}


def _norm(wide: Arrays, fresh: Arrays, layer: str, channels: NDArray) -> dict[str, NDArray]:
    result, real = {}, channels >= 0
    for variable in _NORM:
        name = f"{layer}/BatchNorm/{variable}"
        new = np.array(fresh[name], np.float32)
        new[real] = wide[name][channels[real]]
        result[name] = new
    return result


def _width(values: Arrays, layer: str) -> int:
    return values[f"{layer}/weights"].shape[3]


def with_slim_names(values: Arrays) -> dict[str, NDArray]:
    """Rename the variables of Keras Applications' or the usual PyTorch MobileNet v1 to those of a slim checkpoint.

    Keras: 'conv1/kernel', 'conv_dw_1_bn/gamma', HWIO. PyTorch: 'stage1.0.0.weight' (a stem and 13 blocks in
    stages of 6, 6 and 2, each block's two convolutions with batch norm), OIHW. PyTorch's network pads evenly on
    both sides and has a batch-norm epsilon of 1e-5; fine-tuning has to compensate for both.

    Returns:
        Names 'MobilenetV1/...' and HWIO kernels. Other checkpoints are returned unchanged.
    """
    if "conv1/kernel" in values:
        named = {_keras_name(name): value for name, value in values.items()}
    elif "stage1.0.0.weight" in values:
        named = {}
        for name, value in values.items():
            slim = _torch_name(name)
            if slim is not None and value.ndim == 4:
                order = (2, 3, 0, 1) if slim.endswith("depthwise_weights") else (2, 3, 1, 0)
                value = value.transpose(order)
            named[slim] = value
    else:
        return dict(values)
    return {f"MobilenetV1/{name}": value for name, value in named.items() if name is not None}


def _keras_name(name: str) -> str | None:
    match = re.fullmatch(r"(conv1|conv_(dw|pw)_(\d+))(_bn)?/(\w+)", name)
    if match is None:
        return None
    _, kind, block, norm, variable = match.groups()
    layer = {"dw": f"Conv2d_{block}_depthwise", "pw": f"Conv2d_{block}_pointwise", None: "Conv2d_0"}[kind]
    if norm:
        return f"{layer}/BatchNorm/{variable}" if variable in _NORM else None
    return f"{layer}/{'depthwise_weights' if kind == 'dw' else 'weights'}"


def _torch_name(name: str) -> str | None:
    if match := re.fullmatch(r"stage1\.0\.([01])\.(\w+)", name):
        layer, (norm, variable) = "Conv2d_0", match.groups()
        kernel = "weights"
    elif match := re.fullmatch(r"(stage\d)\.(\d+)\.([01])\.([01])\.(\w+)", name):
        stage, entry, half, norm, variable = match.groups()
        if stage not in _TORCH_STAGES:
            return None
        block = _TORCH_STAGES[stage] + int(entry)
        layer = f"Conv2d_{block}_{'pointwise' if half == '1' else 'depthwise'}"
        kernel = "weights" if half == "1" else "depthwise_weights"
    else:
        return None
    if norm == "1":
        return f"{layer}/BatchNorm/{_TORCH[variable]}" if variable in _TORCH else None
    return f"{layer}/{kernel}" if variable == "weight" else None
