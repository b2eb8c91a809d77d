"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outside data (goldens, photos) beside the project; skips the test where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with outside data is missing")
    return SHARED


@pytest.fixture(scope="session")
def yunet(shared: Path) -> Path:
    """The teacher's ONNX file; skips the test where it, or onnxruntime, is missing."""
    pytest.importorskip("onnxruntime")
    path = shared / "peers" / "yunet_n.onnx"
    if not path.is_file():
        pytest.skip("../shared/peers/yunet_n.onnx is missing")
    return path
