"""The training input of `mirilla.augmentation`: pictures framed, put together as mosaics, and finished.

What the API's augmentations do to a picture (`train_config.data_augmentation_options`) is done to each one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.example import View
from mirilla.batches.framing import LEAST_SHARE, AspectMix, Framing, ObjectZoom, ZoomOut, seen_through
from mirilla.batches.paint import draw, drawable
from mirilla.batches.photo_effects import Blur, Finish, Grey, JpegTraces, Noise, Photometric
from mirilla.errors import ConfigError
from mirilla.model.spec import ModelSpec

# Objects of a smaller side sqrt(w h) in the network's input are ignored: a cell of the finest map is 8 or 16 px
# wide, and below 4 px a face is a speck that people do not name either. Asking for it teaches false alarms.
LEAST_SIDE_PX = 4.0
# Objects with less of their area left by a mosaic's tile are ignored.
LEAST_TILE_SHARE = 0.4
# A mosaic's four tiles meet between these shares of the input's height and width.
CENTRE = (0.3, 0.7)
# Pictures that become much smaller are averaged in this share of cases, and sampled as image_resizer does
# otherwise: a detector is given both kinds.
SMOOTH = 0.5
NO_FINISH = Finish()


@dataclass(frozen=True)
class Mosaic:
    """Four pictures in the quarters around a random point (arXiv:2004.10934 §3.3).

    off_share: none in this last share of the training.
    """

    probability: float = 0.5
    off_share: float = 0.1


@dataclass(frozen=True)
class InputRecipe:
    """What `mirilla.augmentation` asks for; None: not in it."""

    mosaic: Mosaic | None = None
    zoom_out: ZoomOut | None = None
    object_zoom: ObjectZoom | None = None
    aspect: AspectMix | None = None
    finish: Finish = NO_FINISH

    def has_mosaics(self, step: int, total_steps: int | None) -> bool:
        """Whether a step of so many may show mosaics; with None, each may."""
        if self.mosaic is None:
            return False
        return total_steps is None or step < total_steps * (1 - self.mosaic.off_share)

    def example(
        self, rng: np.random.Generator, first: View, other: Callable[[], View], spec: ModelSpec, mosaic: bool
    ) -> tuple[NDArray[np.uint8], View]:
        """An image (H, W, 3) uint8 of the network's input, and a view with its objects, normalised to it.

        Args:
            first: the picture whose turn it is, after the API's augmentations.
            other: makes another one, drawn by the same random numbers.
            mosaic: whether there may be one.
        """
        height, width = spec.height_px, spec.width_px
        framing = Framing((height, width), spec.keep_aspect_ratio, self.object_zoom, self.zoom_out, self.aspect)
        image = np.empty((height, width, 3), np.uint8)
        if mosaic and self.mosaic is not None and rng.random() < self.mosaic.probability:
            y, x = (round(side * rng.uniform(*CENTRE)) for side in (height, width))
            tiles = (0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)
            parts = [
                _tile(rng, first if i == 0 else other(), framing, image, tiles[place])
                for i, place in enumerate(rng.permutation(4))
            ]
            shown = _together(parts)
        else:
            shown = _tile(rng, first, framing, image, (0, 0, height, width))
        sides = (shown.boxes_yxyx[:, 2:] - shown.boxes_yxyx[:, :2]) * [height, width]
        shown = replace(shown, ignore=shown.ignore | (sides.prod(1) < LEAST_SIDE_PX**2))
        return self.finish(rng, image), shown


def input_recipe(messages: Iterable[Any]) -> InputRecipe | None:
    """The recipe that `pipeline.mirilla.augmentation` describes; None where it is empty.

    Raises:
        ConfigError: a step that is not known.
    """
    parts: dict[str, Any] = {}
    for message in messages:
        kind = message.WhichOneof("step")
        if kind not in _STEPS:
            raise ConfigError(f"mirilla.augmentation: '{kind}' is not known.", f"Use {', '.join(_STEPS)}.")
        parts[kind] = _STEPS[kind](getattr(message, kind))
    if not parts:
        return None
    finish = Finish(*(parts.get(name) for name in ("photometric", "grey", "blur", "noise", "jpeg_traces")))
    return InputRecipe(
        parts.get("mosaic"), parts.get("zoom_out"), parts.get("object_zoom"), parts.get("aspect_mix"), finish
    )


_STEPS: dict[str, Callable[[Any], Any]] = {
    "mosaic": lambda m: Mosaic(m.probability, m.off_share),
    "zoom_out": lambda m: ZoomOut(m.probability, m.most),
    "object_zoom": lambda m: ObjectZoom(m.probability, m.least_px, m.most_px),
    "aspect_mix": lambda m: AspectMix(m.letterbox_probability),
    "blur": lambda m: Blur(m.probability, m.most_sigma_px),
    "noise": lambda m: Noise(m.probability, m.most_stddev),
    "jpeg_traces": lambda m: JpegTraces(m.probability, m.least_quality),
    "grey": lambda m: Grey(m.probability),
    "photometric": lambda m: Photometric(m.probability, m.strength),
}


def _tile(
    rng: np.random.Generator, view: View, framing: Framing, image: NDArray[np.uint8], tile: tuple[int, int, int, int]
) -> View:
    """Draw a view into a tile (top, left, bottom, right) of the image -> its objects, normalised to the image."""
    top, left, bottom, right = tile
    size, whole = (bottom - top, right - left), image.shape[:2]
    view = drawable(view)
    window, fill = framing(rng, view, size, size != whole)
    draw(view, window, image[top:bottom, left:right], fill, smooth=rng.random() < SMOOTH)
    view = seen_through(view, window, LEAST_SHARE if size == whole else LEAST_TILE_SHARE)
    scale, start = np.array(size * 2), np.array([top, left, top, left])
    return replace(view, boxes_yxyx=(view.boxes_yxyx * scale + start) / np.array(whole * 2))


def _together(parts: list[View]) -> View:
    return replace(
        parts[0],
        boxes_yxyx=np.concatenate([p.boxes_yxyx for p in parts]),
        classes=np.concatenate([p.classes for p in parts]),
        weights=np.concatenate([p.weights for p in parts]),
        ignore=np.concatenate([p.ignore for p in parts]),
    )
