"""The order of constants: the tables, and models that they do not fit."""

from __future__ import annotations

import hashlib

import pytest

from helpers_graph import small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import constant_order as order
from mirilla.errors import UsageError


@pytest.mark.parametrize(
    ("name", "count", "md5"),
    [
        ("O1", 86, "a68c50ae7ddd370c3d8db17e4bd31669"),
        ("O2", 86, "a994958fab898653e0d0204c0cbd7766"),
        ("O3", 86, "5018bba8c68642f3eac486ae377e381e"),
        ("O4", 58, "745e208b01dd7714f5b13afdfcb40d4c"),
        ("O5", 56, "7c7b0e5c9aefa7b3818b8fe2b80b5cca"),
    ],
)
def test_order_tables_expand_to_the_recorded_names(name, count, md5):
    names = order.table(name)
    assert len(set(names)) == count
    assert hashlib.md5("\n".join(names).encode()).hexdigest() == md5


def test_unknown_and_unsuitable_orders_are_refused():
    with pytest.raises(UsageError, match="O1"):
        bonnet.build(small_network().graph_def, constant_order="O1")
    with pytest.raises(UsageError, match="O9"):
        bonnet.build(small_network().graph_def, constant_order="O9")
