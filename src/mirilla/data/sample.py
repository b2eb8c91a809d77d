"""One labelled picture, and a set of them: what every format is read into and written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One picture with its boxes, as its source states them (boxes are not clipped, dropped or mended).

    image: the picture's file, or its encoded bytes (JPEG, PNG, ...) as a TFRecord carries them.
    filename: its name inside the data set, with '/' between folders; unique there.
    height_px, width_px: size of the picture as a person sees it (after the EXIF rotation).
    boxes_yxyx: (N, 4) float64, normalised to that size; may lie outside [0, 1] or be inverted where the source says so.
    labels: N class names.
    ignore: (N,) bool: neither taught as an object nor as background, neither right nor wrong in evaluation
        (WIDER FACE's `invalid`).
    difficult, group_of, is_crowd: (N,) bool, the API's flags.
    weight: (N,) float64, loss weight of each box, 1 by default.
    attributes: further integers a box carries, name -> (N,) int64 (WIDER FACE: blur, expression, illumination,
        invalid, occlusion, pose).
    where: file and line or record number, for messages.
    """

    image: Path | bytes
    filename: str
    height_px: int
    width_px: int
    boxes_yxyx: NDArray[np.float64]
    labels: tuple[str, ...]
    ignore: NDArray[np.bool_] = None  # type: ignore[assignment]
    difficult: NDArray[np.bool_] = None  # type: ignore[assignment]
    group_of: NDArray[np.bool_] = None  # type: ignore[assignment]
    is_crowd: NDArray[np.bool_] = None  # type: ignore[assignment]
    weight: NDArray[np.float64] = None  # type: ignore[assignment]
    attributes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self):
        count = len(self.labels)
        object.__setattr__(self, "boxes_yxyx", np.asarray(self.boxes_yxyx, np.float64).reshape(-1, 4))
        if len(self.boxes_yxyx) != count:
            raise ValueError(f"{self.filename}: {len(self.boxes_yxyx)} boxes but {count} labels")
        for name in ("ignore", "difficult", "group_of", "is_crowd"):
            given = getattr(self, name)
            value = np.zeros(count, bool) if given is None else np.asarray(given, bool)
            object.__setattr__(self, name, value)
        value = np.ones(count) if self.weight is None else np.asarray(self.weight, np.float64)
        object.__setattr__(self, "weight", value)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def boxes_px_xyxy(self) -> NDArray[np.float64]:
        """(N, 4) [xmin, ymin, xmax, ymax] in pixels, for the formats that count so."""
        return self.boxes_yxyx[:, [1, 0, 3, 2]] * np.array([self.width_px, self.height_px] * 2, np.float64)

    def encoded(self) -> bytes:
        """The picture's encoded bytes, read from its file where it is one."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()
