"""Frames of videos and cameras, and videos with boxes: what OpenCV reads and writes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
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
_STREAMS = ("rtsp://", "rtmp://", "http://", "https://", "udp://")
MAX_RATE, DEFAULT_RATE = 240.0, 25.0  # frames per second; a file that claims more, or nothing, gets the default


def live_source(word: str) -> str | None:
    """A camera or stream by the words that people use: '0' and 'webcam' are 'camera:0'; None if it is neither."""
    if word == "webcam" or (word.isdigit() and not os.path.exists(word)):
        return CAMERA + (word if word.isdigit() else "0")
    return word if word.startswith((CAMERA, *_STREAMS)) else None


def without_password(source: str) -> str:
    """The source as it is shown and kept: a stream's address without user and password."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", source)


@contextlib.contextmanager
def opened(source: str) -> Iterator[tuple[Iterator[Frame], float]]:
    """The frames of a video file, a camera ('camera:0') or a stream's address, and its frames per second.

    Raises:
        DataError: the file, camera or stream cannot be read.
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
        if not capture.isOpened() and source.startswith(_STREAMS):
            raise DataError(
                f"{without_password(source)}: the stream cannot be read.", "Check the address, name and password."
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


@cache
def suffix() -> str:
    """'.webm' with VP8, which browsers play; '.mp4' (MPEG-4 part 2) if this OpenCV has no VP8."""
    try:
        _opencv()
    except MissingExtraError:
        return ".webm"
    with tempfile.TemporaryDirectory() as folder:
        writer = _open_writer(Path(folder) / "probe.webm", DEFAULT_RATE, (32, 32))
        is_open = writer.isOpened()
        writer.release()
    return ".webm" if is_open else ".mp4"


def _open_writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """OpenCV's writer for a file name with `suffix`, without the line that it prints about the tag of every WebM."""
    opencv = _opencv()
    code = opencv.VideoWriter.fourcc(*("VP80" if path.suffix == ".webm" else "mp4v"))
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        return opencv.VideoWriter(str(path), code, rate, size)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


class VideoWriter:
    """A video that gets its name only when it is complete; a path of None writes nothing."""

    def __init__(self, path: Path | None, rate: float):
        self._path, self._rate = path, rate
        self._part = path.with_name(f".{path.stem}.part{path.suffix}") if path else None
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
        writer = self._writer
        if writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = writer = _open_writer(self._part, self._rate, (frame.shape[1], frame.shape[0]))
            if not writer.isOpened():
                raise MirillaError(f"{self._path}: the video cannot be written.", "Choose another --out, or omit it.")
        writer.write(np.ascontiguousarray(frame[..., ::-1]))

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
