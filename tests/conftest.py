"""Shared fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mirilla.emulator.server import Server

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with external data (goldens, photos) beside the project; skips the test if it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with external data is missing")
    return SHARED


@pytest.fixture(scope="session")
def yunet(shared: Path) -> Path:
    """The teacher's ONNX file; skips the test if it or onnxruntime is missing."""
    pytest.importorskip("onnxruntime")
    path = shared / "peers" / "yunet_n.onnx"
    if not path.is_file():
        pytest.skip("../shared/peers/yunet_n.onnx is missing")
    return path


@pytest.fixture
def camera_folder(tmp_path: Path) -> Path:
    """A folder with three pictures of 8x8 px, red 0, 10 and 20, for the emulated camera."""
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def emulator(camera_folder: Path) -> Iterator[Server]:
    """A running emulator whose camera shows `camera_folder`, the next picture for each request."""
    from mirilla.emulator.bonnet import EmulatedBonnet
    from mirilla.emulator.camera import open_frames
    from mirilla.emulator.server import Server

    with Server(EmulatedBonnet(frames=open_frames(camera_folder), fps=0), port=0, message_s=1.0) as server:
        yield server
