"""When compiled functions are taken: not for a few photos, at once where Numba is in use, never where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mirilla.kernels.lazy import Compiled

RULE = """
import sys
import numpy as np
from mirilla import boxes, resize
photo = np.zeros((8, 8, 3), np.uint8)
for _ in range(resize.KERNEL_FROM - 1):
    resize.to_input(photo, 4, 4)
    boxes.nms(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), 0.5, 1)
assert "numba" not in sys.modules, "imported too early"
{then}
resize.to_input(photo, 4, 4)
print(resize._KERNEL.get() is not None, boxes._NMS.get() is not None)
"""


@pytest.mark.parametrize(
    ("then", "compiled"), [("", True), ("sys.modules['numba'] = None  # as if it were not installed", False)]
)
def test_numba_is_imported_only_where_photos_are_many(then, compiled):
    pytest.importorskip("numba")
    run = subprocess.run([sys.executable, "-c", RULE.format(then=then)], capture_output=True, text=True)
    assert run.stdout.split() == [str(compiled)] * 2, run.stderr


def test_where_numba_is_in_use_a_function_is_there_at_once():
    numba = pytest.importorskip("numba")
    assert Compiled("numba", "njit").get() is numba.njit


def test_where_numba_finds_no_folder_for_what_it_compiles_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "nowhere.py").write_text("raise RuntimeError('cannot cache function: no locator available')")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = Compiled("nowhere", "run", after=2)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert function.get() is None
    assert not function._unavailable  # once is not enough
    assert function.get() is None
    assert function._unavailable
