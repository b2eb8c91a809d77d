"""The order in which a compiled file lists its constants.

A loader cannot depend on this order, but eight orders are known from files, and byte-identical output needs them.
They result from the history of a hash map that is not fully understood, so they are stored as tables of short tokens
(docs/bonnet-format.md, The order of constants).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mirilla.bonnet.lower import Weights
from mirilla.errors import UsageError

_EXTRA_LAYERS = {  # token -> the SSD's extra layer
    "x12": "Conv2d_13_pointwise_1_Conv2d_2_1x1_32",
    "x22": "Conv2d_13_pointwise_2_Conv2d_2_3x3_s2_64",
    "x13": "Conv2d_13_pointwise_1_Conv2d_3_1x1_16",
    "x23": "Conv2d_13_pointwise_2_Conv2d_3_3x3_s2_32",
    "x14": "Conv2d_13_pointwise_1_Conv2d_4_1x1_16",
    "x24": "Conv2d_13_pointwise_2_Conv2d_4_2x2_s2_32",
}
_FUSED, _UNFUSED = "BatchNorm/FusedBatchNorm", "BatchNorm/batchnorm/add_1"
_SSD, _CLASSIFIER, _SQUEEZENET = "FeatureExtractor/MobilenetV1", "MobilenetV1", "Squeezenet"
_FIRE = {"s": "Squeeze", "e": "Expand_1x1", "t": "Expand_3x3"}

# name -> (suffix of the batch norm, scope, tokens). A token is w (weights) or B (bias) and a layer: c0, dN (depthwise),
# pN (pointwise), xMN (extra layer), bN (box predictor), kN (class predictor), gemm or logits. Squeezenet: c1, c10, and
# sN, eN, tN for the three convolutions of the module fire N.
_TABLES = {
    "O1": (
        _FUSED,
        _SSD,
        """
        Bk4 Bb3 Bk2 Bb2 Bk1 Bk0 Bx24 Bx14 Bx23 Bx13 Bx22 Bx12 Bp12 Bp11 Bd11 Bp9 Bd8 Bp7 Bd7 Bp6 Bd5 Bp4 Bd3
        Bp1 Bb4 Bp13 Bp10 wb1 wk0 wb0 wd4 wk1 Bd12 wx22 Bd6 wd2 wp8 wp2 Bd10 wd12 wp1 wd13 Bd9 wx12 Bd1 wp13
        Bb0 wd10 Bd2 wd6 wd5 wx23 wp5 wp3 wc0 wp9 wp7 wd1 Bk3 Bb1 Bd4 wx13 Bd13 wd11 Bp8 wd7 wd3 wp4 wd9 Bp3
        wp11 wd8 wk3 wb2 Bp5 wb4 Bc0 wk4 wx24 wp6 wp12 wp10 wk2 Bp2 wb3 wx14""",
    ),
    "O2": (
        _FUSED,
        _SSD,
        """
        Bk4 Bb3 Bk2 Bb2 Bk1 Bk0 Bx24 Bx14 Bx23 Bx13 Bx22 Bx12 Bp12 Bp11 Bd11 Bp9 Bd8 Bp7 Bd7 Bp6 Bd5 Bp4 Bd3
        Bp1 Bp3 Bp10 wb1 wp8 wk0 Bd6 wb0 wd4 Bd12 wx22 wp2 wd12 wp1 wd13 Bd9 wx12 Bd1 wp13 Bb0 wd10 Bd2 wd6
        wd5 wx23 wp5 wp3 wc0 wp9 wd2 wp7 wd1 Bk3 Bb1 Bd4 wx13 Bd13 wd11 Bp8 wd7 wd3 wp4 wd9 wp11 wd8 wk3
        Bd10 wb2 wk1 Bp5 Bb4 Bp13 wb4 Bc0 wk4 wx24 wp6 wp12 wp10 wk2 Bp2 wb3 wx14""",
    ),
    "O3": (
        _UNFUSED,
        _SSD,
        """
        Bk4 Bb4 Bb3 Bk2 Bb2 Bk1 Bk0 Bx13 Bx12 Bp12 Bd11 Bd10 Bp7 Bd7 Bp6 Bd6 Bp10 Bp5 Bd5 Bd4 Bp2 Bd2 Bp1
        Bd1 Bc0 Bp9 Bx24 Bx22 Bp13 Bp4 Bd8 Bd13 Bd9 wb1 wk0 wb0 wd4 Bp8 wk1 wx22 Bk3 wd2 Bx14 wp2 Bd3 Bp3
        wd12 wp1 wd13 wx12 wp13 Bb0 wd10 wp9 wd6 wd5 wx23 wp5 wp3 wc0 wp7 wd1 wp8 Bb1 wx13 wd11 wd7 wd3 wp4
        Bp11 wd9 wp10 wd8 wk3 wb2 Bd12 wb4 wk4 wx24 wp6 wp12 wb3 Bx23 wp11 wk2 wx14""",
    ),
    "O4": (
        _UNFUSED,
        _CLASSIFIER,
        """
        wgemm Blogits Bp13 Bd13 Bp12 Bd12 Bp11 Bd11 Bp10 Bp9 Bp7 Bd7 Bp6 Bd10 Bd6 Bd5 Bd4 Bp3 Bd3 Bd2 Bd9
        wd9 wd5 wd8 wp13 wd12 Bp8 Bp2 wp6 wd1 wd3 wp3 wp7 wc0 wd13 Bc0 wp10 wd6 wd2 wd11 wp1 Bp1 wd7 wd10
        Bp5 wlogits wp8 Bd8 wd4 Bp4 wp12 wp2 Bgemm Bd1 wp4 wp9 wp11 wp5""",
    ),
    "O5": (
        _FUSED,
        _CLASSIFIER,
        """
        Blogits Bp13 Bd13 Bp12 Bd12 Bp11 Bp10 Bd10 Bd9 Bp8 Bd8 Bp7 Bd7 Bd6 Bp5 Bd5 Bp4 Bd4 Bp3 Bd2 Bd1 Bd11
        Bc0 Bp9 wd8 wp12 wp13 wd12 Bp1 wp6 wp3 wp7 wc0 Bp6 wd13 wp2 wp10 wd6 wd2 wd1 wd11 wp1 wd5 wp5 wd4
        wd9 wd7 wd10 Bd3 wlogits wp9 Bp2 wd3 wp8 wp11 wp4""",
    ),
    "O6": (  # of the same names as O1 and O2
        _FUSED,
        _SSD,
        """
        Bk4 Bb4 Bk3 Bb3 Bk2 Bb1 Bb0 Bx24 Bx14 Bx23 Bx22 Bp12 Bd12 Bd11 Bp10 Bd10 Bp9 Bd8 Bp6 Bd6 Bd5 Bp3 Bd3
        Bp2 Bd1 Bc0 Bd2 Bd7 Bp8 Bp13 wb3 wp7 wk1 Bp7 wx24 wx23 Bx12 wx12 wp5 wd5 Bk1 wp9 Bp5 wd3 wd12 Bd13 wk2
        wc0 wb1 wp1 wd4 wx14 wp2 wp4 Bd4 wk4 wd2 wp12 Bx13 wp3 Bp4 wd8 wk3 wd1 Bk0 wp13 wp11 wp10 wp6 wp8 wd9
        Bp11 wd11 wx22 wb2 wd7 wk0 wd6 wd13 Bp1 wx13 wd10 Bd9 wb0 wb4 Bb2""",
    ),
    "O7": (
        _FUSED,
        _SQUEEZENET,
        """
        Be9 Bs9 Bt8 Be8 Bs8 Bt7 Bs7 Bs4 Bt3 Be3 Bt2 Bt9 Bs2 Bc1 Be2 Bc10 Bs5 Bs6 Bt6 Bt5 Be6 Be5 ws8 wt3 wt6
        ws7 ws6 ws5 wt2 wc1 Be4 we9 wc10 wt4 wt5 Be7 we4 ws2 ws4 we3 we7 we5 we2 Bt4 we8 Bs3 wt8 ws9 we6 wt9
        wt7 ws3""",
    ),
    "O8": (  # of the same names as O5
        _FUSED,
        _CLASSIFIER,
        """
        Bp13 Bd13 Bp12 Bd12 Bp11 Bd11 Bp10 Bd10 Bp9 Bd9 Bp8 Bd8 Bp7 Bd7 Bp6 Bd5 Bd4 Bp4 Bp3 Bd3 Bp2 Bd2 Bc0
        Bp5 Bd1 wd1 wp10 wd8 wd11 wp7 Bp1 wd6 wp2 wd9 wd2 wp8 wlogits wp6 wd10 Blogits wp5 Bd6 wc0 wp4 wd3 wp9
        wd4 wp1 wp3 wp11 wd5 wd12 wp12 wd7 wd13 wp13""",
    ),
}
TABLES = tuple(_TABLES)
CHOICES = ("auto", *TABLES, "graph")


def _expand(token: str, suffix: str, scope: str) -> str:
    """The full name of a token's constant."""
    is_bias, layer = token[0] == "B", token[1:]
    if scope == _SQUEEZENET:
        return _squeezenet(layer, is_bias, suffix)
    if layer == "gemm":
        return "final_training_ops/Wx_plus_b/add/" + (
            "matmul_bias" if is_bias else "matmul/transpose_weights/transpose"
        )
    if layer == "logits" or layer[0] in "bk":
        name = _predictor(layer)
        return f"{name}/BiasAdd/conv_bias" if is_bias else f"{name}/weights"
    if layer[0] == "x":
        name, inner = _EXTRA_LAYERS[layer], scope
    else:
        kind = {"c": "", "d": "_depthwise", "p": "_pointwise"}[layer[0]]
        name, inner = f"Conv2d_{layer[1:]}{kind}", f"{scope}/MobilenetV1"
    if is_bias:
        return f"{inner}/{name}/{suffix}/conv_bias"
    return f"{scope}/{name}/" + ("depthwise_weights" if layer[0] == "d" else "weights")


def _squeezenet(layer: str, is_bias: bool, suffix: str) -> str:
    """The full name of a constant of the slim models' Squeezenet."""
    if layer == "c10":
        name = f"{_SQUEEZENET}/Logits/Conv_10"
        return f"{name}/BiasAdd/conv_bias" if is_bias else f"{name}/weights"
    name = "Conv2d_1" if layer == "c1" else f"Fire_{layer[1:]}/{_FIRE[layer[0]]}"
    return f"{_SQUEEZENET}/{_SQUEEZENET}/{name}/{suffix}/conv_bias" if is_bias else f"{_SQUEEZENET}/{name}/weights"


def _predictor(layer: str) -> str:
    """Scope of a layer that predicts: the classifier's logits, or an SSD's boxes or classes."""
    if layer == "logits":
        return "MobilenetV1/Logits/Conv2d_1c_1x1"
    return f"BoxPredictor_{layer[1:]}/" + ("BoxEncodingPredictor" if layer[0] == "b" else "ClassPredictor")


@cache
def table(name: str) -> tuple[str, ...]:
    """The constants' names in the order of a table, 'O1' to 'O8'."""
    suffix, scope, tokens = _TABLES[name]
    return tuple(_expand(token, suffix, scope) for token in tokens.split())


def arrange(constants: Sequence[Weights], choice: str = "auto") -> tuple[str, tuple[Weights, ...]]:
    """Sort constants into the order of a file.

    Args:
        constants: in any order.
        choice: a table's name, 'graph' (biases, then weights, each in reverse order of the graph), or 'auto':
            the first table with the same names, else 'graph'.

    Returns:
        The order used, and the constants in that order.

    Raises:
        UsageError: an unknown choice, or a table for other names than the model's.
    """
    by_name = {constant.name: constant for constant in constants}
    if choice not in CHOICES:
        raise UsageError(f"Unknown constant order '{choice}'.", f"Choose from: {', '.join(CHOICES)}.")
    if choice in TABLES and set(table(choice)) != by_name.keys():
        different = sorted(set(table(choice)) ^ by_name.keys())
        raise UsageError(
            f"The constant order {choice} is for a model with other names than this one ({len(different)} differ, "
            f"the first is '{different[0]}').",
            "Leave --constant-order at auto: any order works on the kit.",
        )
    candidates = TABLES if choice == "auto" else () if choice == "graph" else (choice,)
    for name in candidates:
        if set(table(name)) == by_name.keys():
            return name, tuple(by_name[constant] for constant in table(name))
    return "graph", tuple(sorted(constants, key=lambda constant: (not constant.is_bias, -constant.position)))
