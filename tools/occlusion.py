"""Draw face masks and sunglasses on faces, by the landmarks that YuNet finds.

A detector that never saw a covered face misses half of them. Masks are drawn rather than photographed so that the
training data needs no other photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
# Corners of a mask's right half, from the nose bridge to the chin: across in halves of its width, down in distances
# from the eyes to the mouth.
OUTLINE = ((0.0, 0.40), (0.57, 0.50), (0.95, 0.55), (0.88, 0.85), (0.77, 1.05), (0.35, 1.85), (0.0, 1.90))
COLOURS = ((150, 200, 230), (235, 235, 235), (200, 225, 240), (40, 40, 40), (60, 60, 60), (60, 120, 180))
MIN_FACE_PX = 12  # smaller ones have no landmarks to trust


@dataclass(frozen=True)
class Landmarks:
    """Points of a face as (x, y) in pixels, left and right as seen in the picture, and the face's width in pixels."""

    left_eye: NDArray[np.float64]
    right_eye: NDArray[np.float64]
    nose: NDArray[np.float64]
    mouth: NDArray[np.float64]
    width: float

    @property
    def eyes(self) -> NDArray[np.float64]:
        """The point between the eyes."""
        return (self.left_eye + self.right_eye) / 2

    @property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vectors across (half the width of a mask, to the right) and down (from the eyes to the mouth)."""
        down = self.mouth - self.eyes
        across = np.array([down[1], -down[0]]) / max(float(np.linalg.norm(down)), 1e-6) * self.width / 2
        return across, down


class LandmarkDetector:
    """YuNet in OpenCV, which gives landmarks beside boxes."""

    def __init__(self, path: Path, min_score: float = 0.6) -> None:
        self._detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, 0.4)

    def __call__(self, pixels: Pixels) -> Iterator[tuple[NDArray[np.float64], Landmarks]]:
        """Each face's box, yxyx in pixels, and its landmarks."""
        height, width = pixels.shape[:2]
        self._detector.setInputSize((width, height))
        _, faces = self._detector.detect(np.ascontiguousarray(pixels[..., ::-1]))
        for x, y, w, h, *points in [] if faces is None else faces[:, :14].astype(float):
            first_eye, second_eye, nose, *mouth = np.array(points).reshape(5, 2)
            left, right = sorted((first_eye, second_eye), key=lambda point: point[0])
            yield np.array([y, x, y + h, x + w]), Landmarks(left, right, nose, np.mean(mouth, 0), w)


def cover(pixels: Pixels, face: Landmarks, rng: np.random.Generator) -> bool:
    """Draw a mask, sunglasses, both or neither on a face, in place; whether anything was drawn."""
    if face.width < MIN_FACE_PX:
        return False
    masked, shaded = rng.random() < 0.75, rng.random() < 0.15
    if masked:
        draw_mask(pixels, face, rng)
    if shaded:
        draw_sunglasses(pixels, face, rng)
    return masked or shaded


def draw_mask(pixels: Pixels, face: Landmarks, rng: np.random.Generator) -> None:
    """Draw a mask over nose, mouth and chin, in place: shaded like a cylinder, with folds, a pattern and straps."""
    across, down = face.axes
    across = across * rng.uniform(0.88, 1.0)
    turned = float(np.dot(face.nose - face.eyes, across) / max(np.dot(across, across), 1e-6))  # the head's turn
    height, top = rng.uniform(0.9, 1.05), rng.uniform(-0.15, 0.15)
    right = [(u + turned * (1 - u) * 0.8, v * height + top * (1 - u)) for u, v in OUTLINE]
    left = [(-u + turned * (1 - u) * 0.8, v * height + top * (1 - u)) for u, v in reversed(OUTLINE[1:-1])]
    outline = face.eyes + np.array(right + left) @ np.stack([across, down])
    colour = np.array(COLOURS[rng.integers(len(COLOURS))], float)
    if rng.random() < 0.3:
        colour = rng.uniform(0, 255, 3)
        colour = (colour + colour.mean()) / 2
    if rng.random() < 0.8:
        _straps(pixels, face, across, down, colour * 0.9)
    y0, x0 = np.maximum(np.floor(outline.min(0)[::-1] - 3), 0).astype(int)
    y1, x1 = np.minimum(np.ceil(outline.max(0)[::-1] + 3), pixels.shape[:2]).astype(int)
    if y1 - y0 < 3 or x1 - x0 < 3:
        return
    opacity = _filled(outline - [x0, y0], (y1 - y0, x1 - x0), max(1.0, 0.05 * face.width))[..., None]
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    offset = np.stack([x - face.eyes[0], y - face.eyes[1]], -1) @ np.linalg.inv(np.stack([across, down]))
    u, v = offset[..., 0] - turned, offset[..., 1] - 0.8
    shade = 1 - 0.28 * u**2 - 0.1 * np.abs(v)
    for _ in range(rng.integers(4)):  # folds across
        shade -= 0.1 * np.exp(-(((v - rng.uniform(-1, 1) + 0.1 * u**2) / 0.04) ** 2))
    if rng.random() < 0.2:  # stripes, either way
        shade *= 1 + 0.35 * np.sign(np.sin(rng.uniform(12, 56) * (u if rng.random() < 0.5 else v)))
    patch = pixels[y0:y1, x0:x1].astype(np.float32)
    light = cv2.GaussianBlur(patch.mean(2), (0, 0), max(1.0, 0.08 * face.width))
    shade = shade * np.clip(light / max(float(light.mean()), 1), 0.6, 1.4) * np.clip(patch.mean() / 130, 0.45, 1.15)
    cloth = colour * shade[..., None] + rng.normal(0, 4, patch.shape)
    pixels[y0:y1, x0:x1] = (patch * (1 - opacity) + cloth * opacity).clip(0, 255)


def draw_sunglasses(pixels: Pixels, face: Landmarks, rng: np.random.Generator) -> None:
    """Draw dark glasses over the eyes, in place."""
    between = face.right_eye - face.left_eye
    distance, angle = float(np.linalg.norm(between)), float(np.degrees(np.arctan2(between[1], between[0])))
    size = (distance * 0.78, distance * rng.uniform(0.45, 0.62))
    dark = [int(rng.integers(10, 60))] * 3
    covered = pixels.copy()
    for eye in (face.left_eye, face.right_eye):
        cv2.ellipse(covered, ((float(eye[0]), float(eye[1])), size, angle), dark, -1, cv2.LINE_AA)
    _line(covered, face.left_eye, face.right_eye, dark, 0.03 * face.width)
    opacity = rng.uniform(0.75, 1)
    pixels[:] = (covered * opacity + pixels * (1 - opacity)).astype(np.uint8)


def _straps(pixels: Pixels, face: Landmarks, across: NDArray, down: NDArray, colour: NDArray) -> None:
    for side in (-1, 1):
        start = face.eyes + side * 0.9 * across + 0.55 * down
        _line(pixels, start, start + side * 0.15 * across - 0.3 * down, colour.tolist(), 0.015 * face.width)


def _line(pixels: Pixels, start: NDArray, end: NDArray, colour: list[float], width: float) -> None:
    (x0, y0), (x1, y1) = np.rint(start).astype(int), np.rint(end).astype(int)
    cv2.line(pixels, (int(x0), int(y0)), (int(x1), int(y1)), colour, max(1, round(width)), cv2.LINE_AA)


def _filled(outline: NDArray, size: tuple[int, int], radius: float) -> NDArray[np.float32]:
    """Coverage (height, width), 0 to 1, of a polygon in pixels with corners rounded to about `radius`."""
    finer = 4
    filled = np.zeros((size[0] * finer, size[1] * finer), np.uint8)
    cv2.fillPoly(filled, [np.rint(outline * finer).astype(np.int32)], 255)
    rounded = cv2.GaussianBlur(filled, (0, 0), radius * finer / 2) > 127
    return cv2.resize(rounded.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
