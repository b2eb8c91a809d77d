"""`Sample`: one labelled picture, the type that every format is read into and written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FLAGS = ("ignore", "difficult", "group_of", "is_crowd")


def _no_flags() -> NDArray[np.bool_]:
    return np.zeros(0, bool)


def _no_weights() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True)
class Sample:
    """One picture with its boxes, exactly as in its source: boxes are not clipped, dropped or corrected.

    Flags default to false, weights to 1.

    Attributes:
        image: the picture's file, or its encoded bytes (JPEG, PNG, ...) as a TFRecord holds them.
        filename: its name inside the data set, with '/' between folders; unique there.
        height_px, width_px: size of the picture upright, after its EXIF rotation.
        boxes_yxyx: (N, 4) float64, normalised to that size; may be outside [0, 1] or inverted, as in the
            source.
        labels: N class names.
        ignore: (N,) bool: neither object nor background in training, neither right nor wrong in evaluation
            (WIDER FACE's `invalid`).
        difficult, group_of, is_crowd: (N,) bool, the Object Detection API's flags.
        weight: (N,) float64, loss weight of each box.
        attributes: further integers per box, name -> (N,) int64 (WIDER FACE: blur, expression, illumination,
            invalid, occlusion, pose).
        where: file and line or record number, for messages.
    """

    image: Path | bytes
    filename: str
    height_px: int
    width_px: int
    boxes_yxyx: NDArray[np.float64]
    labels: tuple[str, ...]
    ignore: NDArray[np.bool_] = field(default_factory=_no_flags)
    difficult: NDArray[np.bool_] = field(default_factory=_no_flags)
    group_of: NDArray[np.bool_] = field(default_factory=_no_flags)
    is_crowd: NDArray[np.bool_] = field(default_factory=_no_flags)
    weight: NDArray[np.float64] = field(default_factory=_no_weights)
    attributes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self):
        count = len(self.labels)
        object.__setattr__(self, "boxes_yxyx", np.asarray(self.boxes_yxyx, np.float64).reshape(-1, 4))
        if len(self.boxes_yxyx) != count:
            raise ValueError(f"{self.filename}: {len(self.boxes_yxyx)} boxes but {count} labels")
        for name in FLAGS:
            flags = getattr(self, name)
            object.__setattr__(self, name, np.asarray(flags, bool) if len(flags) else np.zeros(count, bool))
        object.__setattr__(self, "weight", np.asarray(self.weight, np.float64) if len(self.weight) else np.ones(count))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def boxes_px_xyxy(self) -> NDArray[np.float64]:
        """(N, 4) [xmin, ymin, xmax, ymax] in pixels."""
        return self.boxes_yxyx[:, [1, 0, 3, 2]] * np.array([self.width_px, self.height_px] * 2, np.float64)

    def encoded(self) -> bytes:
        """The picture's encoded bytes, read from its file if necessary."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()
