"""Frames of videos and cameras, and videos with boxes: what OpenCV reads and writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import DataError, MirillaError, MissingExtraError

if TYPE_CHECKING:
    import cv2

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
EXTENSIONS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".h264"})
CAMERA = "camera:"
MAX_RATE, DEFAULT_RATE = 240.0, 25.0  # frames per second; a file that claims more, or nothing, gets the default


@contextlib.contextmanager
def opened(source: str) -> Iterator[tuple[Iterator[Frame], float]]:
    """The frames of a video file or a camera ('camera:0'), and its frames per second.

    Raises:
        DataError: the file or camera cannot be read.
        MissingExtraError: OpenCV is not installed.
    """
    opencv = _opencv()
    camera = source.startswith(CAMERA)
    number = source.removeprefix(CAMERA)
    if camera and not number.isdigit():
        raise DataError(f"{source}: not a camera's number.", "Write camera:0 for the first camera.")
    capture = opencv.VideoCapture(int(number) if camera else os.fspath(source))
    try:
        if not capture.isOpened() and camera:
            raise DataError(
                f"{source}: the camera cannot be opened.",
                "Check that it is plugged in and not used by another program.",
            )
        if not capture.isOpened():
            raise DataError(f"{source}: not a readable video.", "Convert it to MP4 (H.264).")
        rate = capture.get(opencv.CAP_PROP_FPS)
        yield _frames(opencv, capture, source), rate if 0 < rate <= MAX_RATE else DEFAULT_RATE
    finally:
        capture.release()


def _frames(opencv: ModuleType, capture: cv2.VideoCapture, source: str) -> Iterator[Frame]:
    good, frame = capture.read()
    if not good:
        raise DataError(f"{source}: no frame can be read.", "Replace the file.")
    while good:
        yield opencv.cvtColor(frame, opencv.COLOR_BGR2RGB)
        good, frame = capture.read()


class VideoWriter:
    """An MP4 that gets its name only when it is complete; a path of None writes nothing."""

    def __init__(self, path: Path | None, rate: float):
        self._path, self._rate = path, rate
        self._part = path.with_name(f".{path.stem}.part.mp4") if path else None
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: Frame) -> None:
        """Append a frame; all must have the size of the first.

        Raises:
            MirillaError: the file cannot be written.
        """
        if self._path is None or self._part is None:
            return
        opencv, writer = _opencv(), self._writer
        if writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            writer = opencv.VideoWriter(str(self._part), opencv.VideoWriter.fourcc(*"mp4v"), self._rate, size)
            self._writer = writer
            if not writer.isOpened():
                raise MirillaError(f"{self._path}: the video cannot be written.", "Choose another --out, or omit it.")
        writer.write(opencv.cvtColor(frame, opencv.COLOR_RGB2BGR))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if self._part is None or self._path is None or not self._part.exists():
            return
        if kind is None or issubclass(kind, KeyboardInterrupt):  # the usual end of a camera's video
            os.replace(self._part, self._path)
        else:
            self._part.unlink()


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "video", "Reading a video or a camera") from None
    return cv2
