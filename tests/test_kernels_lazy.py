"""When compiled functions are used: not for a few photos, at once if Numba is loaded, never if it is missing."""

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
def test_numba_is_imported_only_for_many_photos(then, compiled):
    pytest.importorskip("numba")
    run = subprocess.run([sys.executable, "-c", RULE.format(then=then)], capture_output=True, text=True)
    assert run.stdout.split() == [str(compiled)] * 2, run.stderr


def test_a_function_is_available_at_once_if_numba_is_loaded():
    numba = pytest.importorskip("numba")
    assert Compiled("numba", "njit").get() is numba.njit


def test_a_function_is_unavailable_if_numba_has_no_cache_folder(tmp_path, monkeypatch):
    (tmp_path / "nowhere.py").write_text("raise RuntimeError('cannot cache function: no locator available')")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = Compiled("nowhere", "run", after=2)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert function.get() is None
    assert not function._unavailable  # once is not enough
    assert function.get() is None
    assert function._unavailable
