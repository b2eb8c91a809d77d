"""Mount people who were cut out of portraits into scenes: small, several, turned, cut by the frame.

Portraits show one large upright face in the middle. A detector needs faces of all sizes and places, beside shoulders,
shirts and backgrounds that are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
CANVASES = ((384, 512), (384, 512), (288, 512), (288, 512), (448, 448), (512, 384))  # height, width
COUNTS, SHARES = (0, 1, 2, 3, 5, 8, 12), (0.04, 0.22, 0.22, 0.2, 0.16, 0.1, 0.06)  # of people in a scene
LARGEST_PX = (30, 200, 130, 100, 70, 45, 30)  # height of the largest face, with the long side at 256
SMALLEST_PX = 7
CUTOUT_PX = 320  # longer side
VISIBLE = 0.6  # a face of which less is inside the frame, or not behind others, is ignored


@dataclass(frozen=True, eq=False)
class Cutout:
    """A person: pixels (H, W, 3), opacity of each pixel (H, W) 0 to 1, and the face's box, yxyx in pixels."""

    pixels: Pixels
    opacity: NDArray[np.float32]
    box: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, its faces (N, 4) as yxyx normalised, and which of them count neither way."""

    pixels: Pixels
    boxes_yxyx: NDArray[np.float64]
    ignore: NDArray[np.bool_]


def cut_out(pixels: Pixels, box_yxyx: NDArray[np.float64]) -> Cutout | None:
    """Cut out a person by GrabCut, which starts from ellipses and a cone about the face's box; None if that fails."""
    box = box_yxyx * [*pixels.shape[:2], *pixels.shape[:2]]
    shrink = CUTOUT_PX / max(4.0 * (box[2] - box[0]), 3.6 * (box[3] - box[1]))
    if shrink < 1:
        pixels, box = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), box * shrink
    height, width = box[2] - box[0], box[3] - box[1]
    y0, y1 = int(max(0, box[0] - 0.8 * height)), int(min(pixels.shape[0], box[2] + 2.2 * height))
    x0, x1 = int(max(0, box[1] - 1.3 * width)), int(min(pixels.shape[1], box[3] + 1.3 * width))
    crop = pixels[y0:y1, x0:x1]
    scale = min(1.0, 200 / max(crop.shape[:2]))
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    opacity = _person(small, (box - [y0, x0, y0, x0]) * scale)
    if opacity is None:
        return None
    return Cutout(crop, cv2.resize(opacity, crop.shape[1::-1]), box - [y0, x0, y0, x0])


def _person(pixels: Pixels, box: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The opacity (H, W) of the person with a face at `box` in pixels."""
    cy, cx, h, w = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    head = ((x - cx) / (0.8 * w)) ** 2 + ((y - cy + 0.08 * h) / (0.85 * h)) ** 2 < 1
    body = (y > box[2] - 0.1 * h) & (np.abs(x - cx) < 0.45 * w + 1.0 * (y - box[2] + 0.1 * h))
    face = ((x - cx) / (0.48 * w)) ** 2 + ((y - cy) / (0.5 * h)) ** 2 < 1
    mask = np.where(head | body, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    mask[face | ((y > box[2] + 0.35 * h) & (np.abs(x - cx) < 0.4 * w))] = cv2.GC_FGD
    cv2.setRNGSeed(1)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        cv2.grabCut(np.ascontiguousarray(pixels), mask, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # nothing of one kind
        return None
    found = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    count, parts = cv2.connectedComponents(found)
    found = (parts == parts[int(cy), int(cx)]).astype(np.float32)
    if count < 2 or found[head].mean() <= 0.5:
        return None
    return cv2.GaussianBlur(cv2.erode(found, np.ones((3, 3))), (0, 0), 1.0)


def scene(people: Sequence[Cutout], backgrounds: Sequence[Pixels], rng: np.random.Generator) -> Scene:
    """Mount people, the farthest first, on a part of a background without faces."""
    height, width = CANVASES[rng.integers(len(CANVASES))]
    canvas = _part(backgrounds[rng.integers(len(backgrounds))], height, width, rng).astype(np.float32)
    kind = int(rng.choice(len(COUNTS), p=SHARES))
    low = SMALLEST_PX if COUNTS[kind] > 1 else 3 * SMALLEST_PX
    sizes = np.sort(np.exp(rng.uniform(np.log(low), np.log(LARGEST_PX[kind]), COUNTS[kind]))) * max(height, width) / 256
    boxes: list[NDArray[np.float64]] = []
    free: list[float] = []  # the share of each face that no later person covers
    for size in sizes:
        person = people[rng.integers(len(people))]
        place = _place(person, size, (height, width), boxes, rng)
        if place is not None:
            cover = _paste(canvas, person, place, rng)
            free = [share - _mean_inside(cover, box) for share, box in zip(free, boxes, strict=True)] + [1.0]
            boxes.append(place)
    if rng.random() < 0.15:
        canvas[:] = canvas.mean(2, keepdims=True)
    if rng.random() < 0.25:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.2))
    whole = np.array(boxes, float).reshape(-1, 4)
    seen = np.clip(whole, 0, [height, width, height, width])
    return Scene(
        canvas.clip(0, 255).astype(np.uint8),
        seen / [height, width, height, width],
        (_area(seen) < VISIBLE * _area(whole)) | (np.array(free, float) < VISIBLE),
    )


def _place(
    person: Cutout,
    size: float,
    canvas: tuple[int, int],
    boxes: Sequence[NDArray[np.float64]],
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """A box, yxyx in pixels, for a face of the height `size` that covers no other face; None if none is found."""
    height, width = canvas
    across = size * (person.box[3] - person.box[1]) / (person.box[2] - person.box[0]) * np.exp(rng.normal(0, 0.06))
    margin = 0.5 if rng.random() < 0.1 else 0.0  # of the face, beyond the frame
    lowest, rightmost = height * 0.85 - size * (1 - margin), width - across * (1 - margin)
    if lowest <= -margin * size or rightmost <= -margin * across:
        return None
    for _ in range(12):
        y, x = rng.uniform(-margin * size, lowest), rng.uniform(-margin * across, rightmost)
        box = np.array([y, x, y + size, x + across])
        if all(_overlap(box, other) < 0.1 for other in boxes):
            return box
    return None


def _paste(
    canvas: NDArray[np.float32], person: Cutout, box: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw a person, with the face at `box`, turned and in another exposure, in place; returns the opacity (H, W)."""
    cy, cx = (person.box[0] + person.box[2]) / 2, (person.box[1] + person.box[3]) / 2
    scale_y = (box[2] - box[0]) / (person.box[2] - person.box[0])
    scale_x = (box[3] - box[1]) / (person.box[3] - person.box[1]) * (-1 if rng.random() < 0.5 else 1)
    angle = np.radians(rng.normal(0, 12))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ np.diag([scale_x, scale_y])
    shift = np.array([(box[1] + box[3]) / 2, (box[0] + box[2]) / 2]) - turn @ [cx, cy]
    matrix = np.concatenate([turn, shift[:, None]], 1)
    pixels, opacity = person.pixels, person.opacity
    if scale_y < 0.7:  # avoid aliasing
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale_y)
        opacity = cv2.GaussianBlur(opacity, (0, 0), 0.3 / scale_y)
    size = canvas.shape[1::-1]
    drawn = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32)
    cover = cv2.warpAffine(opacity, matrix, size, flags=cv2.INTER_LINEAR)
    gamma, gain = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(-0.05, 0.2))
    cast = np.exp(rng.normal(0, 0.06, 3))
    canvas *= 1 - cover[..., None]
    canvas += 255 * gain * (drawn / 255) ** gamma * cast * cover[..., None]
    return cover


def _mean_inside(cover: NDArray[np.float32], box: NDArray[np.float64]) -> float:
    """The mean of an opacity over the part of a box that is inside the picture."""
    y0, x0, y1, x1 = np.clip(np.rint(box), 0, [*cover.shape, *cover.shape]).astype(int)
    return float(cover[y0:y1, x0:x1].mean()) if y1 > y0 and x1 > x0 else 0.0


def _part(pixels: Pixels, height: int, width: int, rng: np.random.Generator) -> Pixels:
    """A random part of a picture in another size, mirrored half of the time."""
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width) * rng.uniform(0.5, 1.0)
    h, w = max(1, int(height * scale)), max(1, int(width * scale))
    y, x = int(rng.integers(pixels.shape[0] - h + 1)), int(rng.integers(pixels.shape[1] - w + 1))
    part = cv2.resize(pixels[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)
    return part[:, ::-1] if rng.random() < 0.5 else part


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The share of the smaller box that lies inside the other."""
    both = np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])])
    return float(_area(both) / max(min(_area(a), _area(b)), 1e-9))
