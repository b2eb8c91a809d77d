"""The emulated camera: delivers the pictures of a folder or the frames of a video in a loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirilla.data.images import EXTENSIONS
from mirilla.emulator.pixels import decode_jpeg
from mirilla.errors import DataError, MissingExtraError

Picture = NDArray[np.uint8]  # (H, W, 3)
_REMEDY = "Give a folder of pictures or a video."


class Frames(Protocol):
    """Pictures by number, from 0; after the last picture they repeat.

    Attributes:
        size: (height, width) of the first.
    """

    size: tuple[int, int]

    def __getitem__(self, index: int, /) -> Picture: ...

    def __len__(self) -> int: ...


class FolderFrames:
    """The pictures of a folder, sorted by name; a broken picture raises DataError when it is read."""

    def __init__(self, folder: Path):
        self.paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())
        if not self.paths:
            raise DataError(f"{folder}: no pictures in this folder.", "Give a folder with JPEG or PNG files.")
        height, width = self[0].shape[:2]
        self.size = (height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Picture:
        return read_picture(self.paths[index % len(self.paths)])


class VideoFrames:
    """The frames of a video, read in order and in a loop."""

    def __init__(self, path: Path):
        try:
            import cv2
        except ImportError as error:
            raise MissingExtraError("opencv-python-headless", "video", "Reading a video") from error
        self.path = path
        self._video = cv2.VideoCapture(str(path))
        self._count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self._next = 0
        self._last: Picture | None = None
        self._lock = threading.Lock()
        if not self._video.isOpened():
            raise DataError(f"{path}: not a video that OpenCV can read.", _REMEDY)
        height, width = self[0].shape[:2]
        self.size = (height, width)

    def __len__(self) -> int:
        return max(self._count, 1)

    def __getitem__(self, index: int) -> Picture:
        import cv2

        with self._lock:
            # Reading on is cheap and seeking is not, so dropped frames are read and discarded.
            while self._last is None or self._next <= index:
                good, bgr = self._video.read()
                if not good:
                    self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
                    good, bgr = self._video.read()
                if not good:
                    raise DataError(f"{self.path}: no frame of the video can be read.", "Give another video.")
                self._next += 1
                self._last = np.asarray(bgr, np.uint8)
            return np.ascontiguousarray(self._last[:, :, ::-1])


def open_frames(path: str | Path) -> Frames:
    """The pictures of a folder or the frames of a video.

    Raises:
        DataError: the path does not exist or has no pictures.
        MissingExtraError: it is a video and OpenCV is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return FolderFrames(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder.", _REMEDY)
    return VideoFrames(path)


def read_picture(path: Path) -> Picture:
    """Read a picture file as (H, W, 3); grey becomes three equal channels. The EXIF rotation is not applied."""
    from PIL import UnidentifiedImageError

    from mirilla.data.images import open_picture

    try:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return decode_jpeg(path.read_bytes())
        with open_picture(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, DataError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error


class Clock:
    """Selects the frame that a camera shows now. With 0 frames per second, each call gets the next frame immediately.

    Like a camera, it drops frames that are not read in time and never shows a frame twice.
    """

    def __init__(self, fps: float, now: Callable[[], float] = time.monotonic):
        self.fps, self._now = fps, now
        self.start_s = now()
        self._last = -1

    def next(self) -> tuple[int, float]:
        """(number of the next frame, seconds to wait for it)."""
        if not self.fps:
            self._last += 1
            return self._last, 0.0
        elapsed_s = self._now() - self.start_s
        self._last = max(self._last + 1, int(elapsed_s * self.fps))
        return self._last, max(0.0, self._last / self.fps - elapsed_s)
