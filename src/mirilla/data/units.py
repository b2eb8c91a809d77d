"""Tell pixels from coordinates that are normalised to the picture, and from percent.

A format has one unit. Programs that forget to divide or to multiply write the other one, and then every box is far
outside its picture, or smaller than a pixel. Such pictures are left out, with a single finding for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mirilla.data.sample import Sample
from mirilla.findings import Finding

Unit = Literal["pixels", "normalised", "percent"]
_LOOKS = {
    "pixels": "look like pixels",
    "normalised": "look normalised to the picture (0 to 1)",
    "percent": "look like percent of the picture",
}
_NEARLY_INSIDE = 1.5  # normalised boxes may reach out of the picture a little
_FAR_OUTSIDE = 2.0  # a box that is drawn beyond its picture's edge does not reach twice its width
_REMEDY = {
    "pixels": "Multiply them by the picture's width and height, or export them in pixels.",
    "normalised": "Divide them by the picture's width and height, or export them normalised.",
    "percent": "Divide them by 100, or export them normalised.",
}


def unit_of(boxes_xyxy: NDArray[np.float64], normalised: bool, size_px: tuple[int, int]) -> Unit | None:
    """The unit that the boxes of a picture look like; None if it is the unit of their format, or not clear.

    Args:
        boxes_xyxy: (N, 4), as the annotation has them.
        normalised: whether the format's coordinates are normalised (otherwise they are pixels).
        size_px: (height, width) of the picture.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    if not len(boxes) or (boxes.max() <= _FAR_OUTSIDE if normalised else boxes.max() > _NEARLY_INSIDE):
        return None  # as nearly always
    boxes = boxes[np.isfinite(boxes).all(1)]
    if not len(boxes):
        return None
    if not normalised:
        inside = ((boxes >= 1 - _NEARLY_INSIDE) & (boxes <= _NEARLY_INSIDE)).all()
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1).any()
        return "normalised" if inside and has_area and min(size_px) > 2 else None
    if np.count_nonzero(boxes.max(1) > _FAR_OUTSIDE) * 2 < len(boxes):
        return None
    height, width = size_px
    fits = (boxes <= np.array([width, height, width, height]) + 1).all()
    return "percent" if not fits and (boxes <= 100).all() else "pixels"


@dataclass
class WrongUnits:
    """Counts the pictures whose boxes are in another unit than their format's, for a single finding.

    Attributes:
        title: the format's name in messages.
        normalised: whether the format's coordinates are normalised.
    """

    title: str
    normalised: bool
    pictures: int = 0
    _first: tuple[Unit, str, str] | None = None

    def add(self, boxes_xyxy: NDArray[np.float64], size_px: tuple[int, int], filename: str, where: str) -> bool:
        """Whether the boxes of a picture look like another unit; if so, the picture is counted."""
        unit = unit_of(boxes_xyxy, self.normalised, size_px)
        if unit is None:
            return False
        self.pictures += 1
        if self._first is None:
            x0, y0, x1, y1 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)[0].tolist()
            self._first = unit, where, f"{filename}, x {x0:.6g} to {x1:.6g}, y {y0:.6g} to {y1:.6g}"
        return True

    def add_sample(self, sample: Sample) -> bool:
        """As `add`, for the boxes of a sample, which are in the unit of its format."""
        size_px = sample.height_px, sample.width_px
        return self.add(sample.boxes_yxyx[:, [1, 0, 3, 2]], size_px, sample.filename, sample.where)

    def findings(self) -> list[Finding]:
        """The finding about all counted pictures; empty if there is none."""
        if self._first is None:
            return []
        unit, where, first = self._first
        own = "normalised" if self.normalised else "pixels"
        rule = "normalises them to the picture (0 to 1)" if self.normalised else "has them in pixels"
        pictures = "1 picture" if self.pictures == 1 else f"{self.pictures:,} pictures"
        what = (
            f"the coordinates of {pictures} {_LOOKS[unit]}, but {self.title} {rule}; such pictures are left out "
            f"(first: {first})."
        )
        return [Finding("error", "wrong-unit", where, what, _REMEDY["percent" if unit == "percent" else own])]
