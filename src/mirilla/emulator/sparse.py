"""Sparse outputs: the Bonnet sends only selected values of a tensor, with their indices.

A tensor is viewed in a logical shape, row-major over its flat data. Thresholding selects single values. "From sparse
tensor" selects the values of another tensor that belong to the indices selected by thresholding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mirilla.protos.kit_pb2 import SparseConfig

Sparse = tuple[NDArray[np.float32], NDArray[np.int64]]  # flat values; indices (K, dims of the logical shape)


def threshold(
    data: NDArray[np.float32],
    logical_shape: tuple[int, ...],
    above: float,
    top_k: int,
    to_ignore: tuple[tuple[int, int], ...] = (),
) -> Sparse:
    """Select the values greater than `above`, at most `top_k`, largest first (equal values by index).

    Args:
        data: flat.
        to_ignore: (dim, label) pairs: a value whose index is `label` along `dim` is never selected.

    Raises:
        ValueError: the shape does not match the data, top_k is negative, or a dim does not exist.
    """
    _check_shape(logical_shape)
    if math.prod(logical_shape) != data.size:
        raise ValueError(f"logical shape {logical_shape} does not hold {data.size} values")
    if top_k < 0:
        raise ValueError(f"top_k is {top_k} and cannot be negative")
    selected = data > above  # never true for NaN
    shaped = selected.reshape(logical_shape)  # a view
    for dim, label in to_ignore:
        if not 0 <= dim < len(logical_shape):
            raise ValueError(f"dim {dim} to ignore is not a dim of the logical shape {logical_shape}")
        if 0 <= label < logical_shape[dim]:
            shaped[(slice(None),) * dim + (label,)] = False
    flat = np.flatnonzero(selected)
    flat = flat[np.argsort(-data[flat], kind="stable")[:top_k]]
    return data[flat], np.stack(np.unravel_index(flat, logical_shape), -1)


def from_sparse(
    data: NDArray[np.float32],
    logical_shape: tuple[int, ...],
    indices: NDArray[np.int64],
    squeeze_dims: tuple[int, ...] = (),
) -> Sparse:
    """Select the values at the `indices` (K, D) that were selected in another tensor.

    The dims in `squeeze_dims` are removed from the indices, and of equal indices only the first is kept. If the
    logical shape has an n-th of the data's elements, each index selects n values in a row.

    Raises:
        ValueError: the shape does not divide the data, or the indices do not fit it.
    """
    _check_shape(logical_shape)
    count = math.prod(logical_shape)
    if count < 1 or data.size % count:
        raise ValueError(f"logical shape {logical_shape} does not divide {data.size} values")
    dims = indices.shape[1]
    if any(not 0 <= dim < dims for dim in squeeze_dims):
        raise ValueError(f"squeeze_dims {squeeze_dims} are not among the {dims} dims of the other tensor")
    kept_dims = [dim for dim in range(dims) if dim not in squeeze_dims]
    if len(kept_dims) != len(logical_shape):
        raise ValueError(f"indices of {len(kept_dims)} dims do not fit the logical shape {logical_shape}")
    indices = indices[:, kept_dims]
    if not len(indices):
        return np.zeros(0, np.float32), indices
    if (indices >= np.array(logical_shape)).any():
        raise ValueError(f"indices of the other tensor lie outside the logical shape {logical_shape}")
    indices = indices[np.sort(np.unique(indices, axis=0, return_index=True)[1])]
    flat = np.ravel_multi_index(tuple(indices.T), logical_shape)
    return data.reshape(count, -1)[flat].reshape(-1), indices


def to_sparse(outputs: Mapping[str, NDArray[np.float32]], configs: Mapping[str, SparseConfig]) -> dict[str, Sparse]:
    """{output: its selected values} for the outputs that `configs` name.

    Raises:
        ValueError: a config is for an unknown output, does not fit it, or refers to one that is not thresholded.
    """
    for name, config in configs.items():
        if name not in outputs:
            raise ValueError(f"the model has no output '{name}'")
        if config.WhichOneof("kind") is None:
            raise ValueError(f"the sparse config of '{name}' is empty")
    thresholded = {
        name: _threshold(name, outputs[name], config)
        for name, config in configs.items()
        if config.HasField("thresholding")
    }
    dependent = {
        name: _from_sparse(name, outputs[name], config, thresholded)
        for name, config in configs.items()
        if config.HasField("from_sparse_tensor")
    }
    return thresholded | dependent


def _threshold(name: str, output: NDArray[np.float32], config: SparseConfig) -> Sparse:
    rule = config.thresholding
    to_ignore = tuple((ignored.dim, ignored.label) for ignored in rule.to_ignore)
    shape = tuple(config.logical_shape.values)
    try:
        return threshold(output.reshape(-1), shape, rule.threshold, rule.top_k, to_ignore)
    except ValueError as error:
        raise ValueError(f"sparse config of '{name}': {error}") from error


def _from_sparse(
    name: str, output: NDArray[np.float32], config: SparseConfig, thresholded: Mapping[str, Sparse]
) -> Sparse:
    rule = config.from_sparse_tensor
    if rule.tensor_name not in thresholded:
        raise ValueError(f"sparse config of '{name}': '{rule.tensor_name}' is not a thresholded output")
    _, indices = thresholded[rule.tensor_name]
    shape = tuple(config.logical_shape.values)
    try:
        return from_sparse(output.reshape(-1), shape, indices, tuple(rule.squeeze_dims))
    except ValueError as error:
        raise ValueError(f"sparse config of '{name}': {error}") from error


def _check_shape(logical_shape: tuple[int, ...]) -> None:
    if not 1 <= len(logical_shape) <= 8 or min(logical_shape) < 1:
        raise ValueError(f"logical shape {logical_shape} does not have 1 to 8 positive sizes")
