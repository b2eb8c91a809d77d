"""Sparse outputs: a tensor reduced on the bonnet to the values worth sending, with their places.

A tensor is looked at through a logical shape, row-major over its flat data. Thresholding keeps single values;
"from sparse tensor" keeps, of another tensor, what belongs to the places that were kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sparse = tuple[NDArray[np.float32], NDArray[np.int64]]  # flat values; places (K, dims of the logical shape)


def threshold(
    data: NDArray[np.float32],
    logical_shape: tuple[int, ...],
    above: float,
    top_k: int,
    to_ignore: tuple[tuple[int, int], ...] = (),
) -> Sparse:
    """Keep the values greater than `above`, at most `top_k`, best first (of equal ones the earlier place).

    Args:
        data: flat.
        to_ignore: (dim, label) pairs: a value whose place has `label` along `dim` is never kept.

    Raises:
        ValueError: the shape does not hold exactly the data, top_k is negative, or a dim does not exist.
    """
    _check_shape(logical_shape)
    if math.prod(logical_shape) != data.size:
        raise ValueError(f"logical shape {logical_shape} does not hold {data.size} values")
    if top_k < 0:
        raise ValueError(f"top_k is {top_k} and cannot be negative")
    kept = data > above  # a NaN is never kept
    view = kept.reshape(logical_shape)
    for dim, label in to_ignore:
        if not 0 <= dim < len(logical_shape):
            raise ValueError(f"dim {dim} to ignore is not one of the logical shape {logical_shape}")
        if 0 <= label < logical_shape[dim]:
            view[(slice(None),) * dim + (label,)] = False
    places = np.flatnonzero(kept)
    places = places[np.argsort(-data[places], kind="stable")[:top_k]]
    return data[places], np.stack(np.unravel_index(places, logical_shape), -1)


def from_sparse(
    data: NDArray[np.float32],
    logical_shape: tuple[int, ...],
    kept: NDArray[np.int64],
    squeeze_dims: tuple[int, ...] = (),
) -> Sparse:
    """Keep what belongs to the places `kept` (K, D) of another tensor.

    The dims in `squeeze_dims` are taken out of the places, and places that become equal count once, at their
    first. With a logical shape that holds a n-th of the data, each place stands for n values in a row.

    Raises:
        ValueError: the shape does not divide the data, or the places do not fit it.
    """
    _check_shape(logical_shape)
    count = math.prod(logical_shape)
    if count < 1 or data.size % count:
        raise ValueError(f"logical shape {logical_shape} does not divide {data.size} values")
    dims = kept.shape[1]
    if any(not 0 <= dim < dims for dim in squeeze_dims):
        raise ValueError(f"squeeze_dims {squeeze_dims} are not among the {dims} of the tensor named")
    left = [dim for dim in range(dims) if dim not in squeeze_dims]
    if len(left) != len(logical_shape):
        raise ValueError(f"places of {len(left)} dims do not fit the logical shape {logical_shape}")
    places = kept[:, left]
    if len(places) and (places >= np.array(logical_shape)).any():
        raise ValueError(f"places of the tensor named lie outside the logical shape {logical_shape}")
    if len(places):
        places = places[np.sort(np.unique(places, axis=0, return_index=True)[1])]
    flat = np.ravel_multi_index(tuple(places.T), logical_shape) if len(places) else np.zeros(0, np.int64)
    return data.reshape(count, -1)[flat].reshape(-1), places


def apply(outputs: Mapping[str, NDArray[np.float32]], configs: Mapping[str, Any]) -> dict[str, Sparse]:
    """The outputs named in `configs` (SparseConfig messages), made sparse.

    Raises:
        ValueError: a config that names no output, does not fit it, or refers to one that is not thresholded.
    """
    result: dict[str, Sparse] = {}
    later = []
    for name, config in configs.items():
        if name not in outputs:
            raise ValueError(f"the model has no output '{name}'")
        which = config.WhichOneof("kind")
        if which is None:
            raise ValueError(f"the sparse config of '{name}' is empty")
        if which == "from_sparse_tensor":
            later.append(name)
            continue
        rule = config.thresholding
        ignored = tuple((one.dim, one.label) for one in rule.to_ignore)
        try:
            result[name] = threshold(
                outputs[name].reshape(-1), tuple(config.logical_shape.values), rule.threshold, rule.top_k, ignored
            )
        except ValueError as error:
            raise ValueError(f"sparse config of '{name}': {error}") from error
    thresholded = dict(result)
    for name in later:
        rule = configs[name].from_sparse_tensor
        if rule.tensor_name not in thresholded:
            raise ValueError(f"sparse config of '{name}': '{rule.tensor_name}' is not a thresholded output")
        try:
            result[name] = from_sparse(
                outputs[name].reshape(-1),
                tuple(configs[name].logical_shape.values),
                thresholded[rule.tensor_name][1],
                tuple(rule.squeeze_dims),
            )
        except ValueError as error:
            raise ValueError(f"sparse config of '{name}': {error}") from error
    return result


def _check_shape(logical_shape: tuple[int, ...]) -> None:
    if not 1 <= len(logical_shape) <= 8 or min(logical_shape) < 1:
        raise ValueError(f"logical shape {logical_shape} is not 1 to 8 positive sizes")
