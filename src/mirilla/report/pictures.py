"""Boxes drawn on photos: single photos, and contact sheets that distinguish right from wrong detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mirilla import boxes as geometry
from mirilla.detections import Detections

Colour = tuple[int, int, int]

# Distinguishable with red-green colour blindness, on dark and light photos (after Okabe and Ito's palette).
FOUND: Colour = (0, 190, 130)  # a correct detection
FALSE_ALARM: Colour = (230, 90, 0)  # a detection without an object
MISSED: Colour = (245, 215, 40)  # an object without a detection
IGNORED: Colour = (150, 150, 160)  # an object that does not count
_CLASS_COLOURS: tuple[Colour, ...] = (
    (0, 190, 130),
    (86, 180, 233),
    (230, 159, 0),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)


@dataclass(frozen=True)
class Shown:
    """One photo of a contact sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        detections: those to show, with scores above the threshold.
        boxes_yxyx: (N, 4) ground truth; None to show the detections only.
        ignore: (N,) bool, ground truth that counts neither as found nor as missed.
        labels: N class names of the ground truth; empty if there is only one class.
        title: a line under the photo.
    """

    image: NDArray[np.uint8]
    detections: Detections
    boxes_yxyx: NDArray[np.float64] | None = None
    ignore: NDArray[np.bool_] | None = None
    labels: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Verdict:
    """The result of matching detections with objects, at one IoU.

    Attributes:
        detection: D of 'found', 'false', 'ignored'.
        truth: N of 'found', 'missed', 'ignored'.
    """

    detection: tuple[str, ...]
    truth: tuple[str, ...]


def draw(
    image: NDArray[np.uint8] | Image.Image, detections: Detections, labels: Mapping[int, str] | None = None
) -> Image.Image:
    """The photo with a box, a name and a score for every detection.

    Args:
        image: (H, W, 3) uint8 RGB, or a PIL picture; not changed.
        detections: all are drawn, those with the highest scores on top.
        labels: class id -> name; an id without a name is shown as a number.
    """
    picture = _to_pil(image)
    pen = _Pen(picture)
    names = labels or {}
    for i in reversed(range(len(detections))):
        kind = int(detections.classes[i])
        name = names.get(kind, f"class {kind}")
        pen.box(
            detections.boxes_yxyx[i],
            _CLASS_COLOURS[(kind - 1) % len(_CLASS_COLOURS)],
            f"{name} {detections.scores[i]:.2f}",
        )
    return picture


def judge(shown: Shown, labels: Mapping[int, str] | None = None, iou_threshold: float = 0.5) -> Verdict:
    """Match detections with objects: each, highest score first, takes the unmatched object that it overlaps most.

    All detections of an ignored object are ignored. Class names are compared if both sides have them.
    """
    given = np.zeros((0, 4)) if shown.boxes_yxyx is None else shown.boxes_yxyx
    truth = np.asarray(given, float).reshape(-1, 4)
    ignore = np.zeros(len(truth), bool) if shown.ignore is None else np.asarray(shown.ignore, bool)
    names = labels or {}
    overlaps = geometry.iou(np.asarray(shown.detections.boxes_yxyx, float), truth)
    taken = np.zeros(len(truth), bool)
    verdicts = ["false"] * len(shown.detections)
    for i in np.argsort(-shown.detections.scores, kind="stable"):
        name = names.get(int(shown.detections.classes[i]))
        fits = overlaps[i] >= iou_threshold
        if shown.labels and name is not None:
            fits &= np.array([label == name for label in shown.labels], bool)
        free = np.flatnonzero(fits & ~taken & ~ignore)
        if len(free):
            taken[free[np.argmax(overlaps[i][free])]] = True
            verdicts[i] = "found"
        elif np.any(fits & ignore):
            verdicts[i] = "ignored"
    states = tuple("ignored" if i else "found" if t else "missed" for t, i in zip(taken, ignore, strict=True))
    return Verdict(tuple(verdicts), states)


def draw_compared(
    shown: Shown,
    labels: Mapping[int, str] | None = None,
    iou_threshold: float = 0.5,
    size_px: int | None = None,
) -> Image.Image:
    """The photo with right detections, false alarms, missed and ignored objects in different colours.

    Args:
        size_px: scale the longer side to this before drawing, so that all photos have lines of the same width.
    """
    picture = _to_pil(shown.image)
    if size_px is not None:
        scale = size_px / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    pen = _Pen(picture)
    if shown.boxes_yxyx is None:
        for i in reversed(range(len(shown.detections))):
            pen.box(shown.detections.boxes_yxyx[i], FOUND, f"{shown.detections.scores[i]:.2f}")
        return picture
    verdict = judge(shown, labels, iou_threshold)
    for box, state in zip(shown.boxes_yxyx, verdict.truth, strict=True):
        if state == "ignored":
            pen.box(box, IGNORED, dashed=True)
        elif state == "missed":
            pen.box(box, MISSED, dashed=True)
    for i in reversed(range(len(shown.detections))):
        colour = {"found": FOUND, "false": FALSE_ALARM, "ignored": IGNORED}[verdict.detection[i]]
        pen.box(shown.detections.boxes_yxyx[i], colour, f"{shown.detections.scores[i]:.2f}")
    return picture


def contact_sheet(
    photos: Sequence[Shown],
    labels: Mapping[int, str] | None = None,
    *,
    columns: int = 4,
    cell_px: int = 320,
    iou_threshold: float = 0.5,
    heading: str = "",
) -> Image.Image:
    """Many photos in one picture, with their right, wrong and missed boxes, and a legend.

    The photos are arranged in rows of `columns`; a row is as high as its highest photo.
    """
    margin, caption = 10, 20
    cells = [draw_compared(shown, labels, iou_threshold, cell_px) for shown in photos]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    width = margin + min(columns, max(1, len(cells))) * (cell_px + margin)
    compared = any(shown.boxes_yxyx is not None for shown in photos)
    entries = _legend_entries(compared, iou_threshold)
    legend = _legend(width - 2 * margin, heading, entries)
    heights = [max(cell.height for cell in row) + caption + margin for row in rows]
    sheet = Image.new("RGB", (width, margin * 2 + legend.height + sum(heights)), (24, 26, 30))
    sheet.paste(legend, (margin, margin))
    pen = ImageDraw.Draw(sheet)
    top = margin * 2 + legend.height
    index = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            left = margin + column * (cell_px + margin)
            sheet.paste(cell, (left + (cell_px - cell.width) // 2, top))
            text = _fit(photos[index].title, _font(13), cell_px)
            middle = (left + cell_px // 2, top + cell.height + 3)
            pen.text(middle, text, (190, 194, 200), _font(13), anchor="ma")
            index += 1
        top += height
    return sheet


def _legend_entries(compared: bool, iou_threshold: float) -> list[tuple[Colour, bool, str]]:
    if not compared:
        return [(FOUND, False, "detection, with its score")]
    return [
        (FOUND, False, f"found (IoU >= {iou_threshold:g})"),
        (FALSE_ALARM, False, "false alarm"),
        (MISSED, True, "missed"),
        (IGNORED, True, "does not count"),
    ]


def _legend(width: int, heading: str, entries: list[tuple[Colour, bool, str]]) -> Image.Image:
    font, line = _font(15), 24
    spots: list[tuple[int, int]] = []
    x, y = 0, line if heading else 0
    for _, _, text in entries:
        needed = 40 + round(font.getlength(text)) + 24
        if x and x + needed > width:
            x, y = 0, y + line
        spots.append((x, y))
        x += needed
    picture = Image.new("RGB", (width, y + line), (24, 26, 30))
    pen = ImageDraw.Draw(picture)
    if heading:
        pen.text((0, 2), _fit(heading, _font(17), width), (240, 242, 245), _font(17))
    for (x, y), (colour, dashed, text) in zip(spots, entries, strict=True):
        _rectangle(pen, (x + 1, y + 5, x + 27, y + 19), colour, 3, dashed)
        pen.text((x + 36, y + 3), text, (220, 223, 228), font)
    return picture


class _Pen:
    """Draws boxes on a picture, with lines and letters in proportion to it."""

    def __init__(self, picture: Image.Image):
        self.picture = picture
        self.draw = ImageDraw.Draw(picture)
        longer = max(picture.size)
        self.line_px = max(2, round(longer / 220))
        self.font = _font(max(11, round(longer / 32)))

    def box(self, box_yxyx: NDArray, colour: Colour, text: str = "", dashed: bool = False) -> None:
        width, height = self.picture.size
        box = np.nan_to_num(np.asarray(box_yxyx, float))
        top, bottom = sorted(np.clip(np.round(box[[0, 2]] * height), 0, height - 1).astype(int).tolist())
        left, right = sorted(np.clip(np.round(box[[1, 3]] * width), 0, width - 1).astype(int).tolist())
        side = min(bottom - top, right - left)
        line = max(1, min(self.line_px, side // 6 + 1))
        _rectangle(self.draw, (left, top, right, bottom), colour, line, dashed)
        if not text:
            return
        font = self.font if side >= 0.12 * max(width, height) else _font(max(9, round(self.font.size * 0.75)))
        ink = self.draw.textbbox((0, 0), text, font)
        text_width, text_height = round(ink[2]) + 4, round(ink[3]) + 3
        text_left = max(0, min(left, width - text_width))
        text_top = top - text_height if top >= text_height else min(bottom + 1, height - text_height)
        self.draw.rectangle((text_left, text_top, text_left + text_width, text_top + text_height), colour)
        dark = sum(c * w for c, w in zip(colour, (0.299, 0.587, 0.114), strict=True)) > 110
        self.draw.text((text_left + 2, text_top + 1), text, (0, 0, 0) if dark else (255, 255, 255), font)


def _rectangle(
    pen: ImageDraw.ImageDraw, edges: tuple[int, int, int, int], colour: Colour, line: int, dashed: bool
) -> None:
    left, top, right, bottom = edges
    if not dashed:
        pen.rectangle(edges, outline=colour, width=line)
        return
    dash = max(2, 3 * line)
    for x in range(left, right + 1, 2 * dash):
        end = min(x + dash, right)
        pen.rectangle((x, top, end, top + line - 1), colour)
        pen.rectangle((x, max(top, bottom - line + 1), end, bottom), colour)
    for y in range(top, bottom + 1, 2 * dash):
        end = min(y + dash, bottom)
        pen.rectangle((left, y, left + line - 1, end), colour)
        pen.rectangle((max(left, right - line + 1), y, right, end), colour)


def _to_pil(image: NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(image))
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)  # Pillow contains a scalable font
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened in the middle to fit the width."""
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        short = text[: keep // 2] + "..." + text[len(text) - (keep - keep // 2) :]
        if font.getlength(short) <= width:
            return short
    return ""
