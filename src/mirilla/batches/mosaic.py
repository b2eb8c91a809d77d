"""The training input of `mirilla.augmentation`: pictures framed, put together as mosaics, with a photo's effects.

The API's augmentations (`train_config.data_augmentation_options`) are applied to each picture before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Augmentation, Examples, Objects, whole_pictures
from mirilla.batches.framing import AspectMix, Framing, ObjectZoom, ZoomOut, seen_through
from mirilla.batches.paint import to_uint8
from mirilla.batches.photo_effects import Blur, Grey, JpegTraces, Noise, PhotoEffects, Photometric
from mirilla.batches.tiles import QUARTERS, DrawnBatch, Tiles, draw_fills
from mirilla.errors import ConfigError
from mirilla.model.spec import ModelSpec
from mirilla.protos import pipeline_pb2 as messages

# Objects of a smaller side sqrt(w h) in the network's input are ignored: a cell of the finest map is 8 or 16 px wide,
# and below 4 px a face is a speck that people do not label either. Training on it teaches false alarms.
MIN_SIDE_PX = 4.0
# Objects with less of their area left by a window are ignored: a chin alone is neither a face nor background. A
# mosaic's tiles cut more.
MIN_SHARE, MIN_TILE_SHARE = 0.3, 0.4
# A mosaic's four tiles meet between these shares of the input's height and width.
CENTRE = (0.3, 0.7)
# Pictures that become much smaller are averaged in this share of cases, and sampled as image_resizer does otherwise: a
# detector is given both kinds.
AVERAGED = 0.5
NO_EFFECTS = PhotoEffects()


@dataclass(frozen=True)
class Mosaic:
    """Four pictures in the quarters around a random point (arXiv:2004.10934 §3.3).

    off_share: there are no mosaics in this last share of the training.
    """

    probability: float = 0.5
    off_share: float = 0.1


@dataclass(frozen=True)
class InputRecipe:
    """The augmentations of `mirilla.augmentation`; None: not this one."""

    mosaic: Mosaic | None = None
    zoom_out: ZoomOut | None = None
    object_zoom: ObjectZoom | None = None
    aspect: AspectMix | None = None
    effects: PhotoEffects = NO_EFFECTS

    def has_mosaics(self, steps: NDArray[np.int64], total_steps: int | None) -> NDArray[np.bool_]:
        """Whether steps of so many may show mosaics; with None, all may."""
        if self.mosaic is None:
            return np.zeros(steps.shape, bool)
        return steps < (np.inf if total_steps is None else total_steps * (1 - self.mosaic.off_share))

    def draw(
        self,
        shapes: NDArray[np.int64],
        objects: Objects,
        numbers: NDArray[np.int64],
        draws: Callable[..., Draws],
        augmentations: Sequence[Augmentation],
        spec: ModelSpec,
        mosaics: NDArray[np.bool_],
    ) -> DrawnBatch:
        """Draw a batch.

        Args:
            shapes, objects: of the training set's pictures.
            numbers: (B,) pictures whose turn it is.
            draws: makes the random numbers of tiles from their inputs and which of an input's they are, (T,) each.
            mosaics: (B,) whether an input may be one.
        """
        count, inputs = len(numbers), np.arange(len(numbers))
        of_inputs = draws(inputs, 0 * inputs)
        input_px = np.array([spec.height_px, spec.width_px])
        acts = of_inputs.bernoulli(0.0 if self.mosaic is None else self.mosaic.probability) & mosaics
        centre = np.rint(of_inputs.uniform(2, *CENTRE) * input_px).astype(np.int64)
        centre = np.where(acts[:, None], centre, input_px)
        pictures = (of_inputs.fractions(QUARTERS) * len(shapes)).astype(np.int64)
        pictures[inputs, np.where(acts, of_inputs.integers(0, QUARTERS), 0)] = numbers
        input_of, quarter = np.nonzero(acts[:, None] | (np.arange(QUARTERS) == 0))
        of_tiles = draws(input_of, 1 + quarter)
        examples = whole_pictures(shapes, objects, pictures[input_of, quarter])
        for step in augmentations:
            examples = step(of_tiles, examples)
        examples = in_bytes(examples)
        box_px = _quarters(centre, input_px)[input_of, quarter]
        tile_px, is_part = box_px[:, 2:] - box_px[:, :2], acts[input_of]
        framing = Framing(
            (spec.height_px, spec.width_px), spec.keep_aspect_ratio, self.object_zoom, self.zoom_out, self.aspect
        )
        window, as_the_resizer = framing(of_tiles, examples, tile_px, is_part)
        fills, averaged = draw_fills(of_tiles, as_the_resizer, tile_px), of_tiles.bernoulli(AVERAGED)
        tiles = Tiles(input_of, quarter, box_px, window, averaged, fills, centred=True)
        seen = seen_through(examples, window, np.where(is_part, MIN_TILE_SHARE, MIN_SHARE))
        return DrawnBatch(
            count, examples, tiles, _in_inputs(seen, tiles, input_px), self.effects.draw(of_inputs, input_px)
        )


def in_bytes(examples: Examples) -> Examples:
    """Examples without effects or padding, which tiles can show: new pictures of what is shown where there are any."""
    if not examples.effects and examples.new_pictures is None:
        return examples
    return examples.with_new_pictures(lambda row, pixels: to_uint8(pixels))


def _quarters(centre: NDArray[np.int64], input_px: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B, QUARTERS, 4) top, left, bottom, right of the tiles around centres (B, 2)."""
    y, x = centre.T
    zero, height, width = 0 * y, 0 * y + input_px[0], 0 * x + input_px[1]
    tiles = ((zero, zero, y, x), (zero, x, y, width), (y, zero, height, x), (y, x, height, width))
    return np.stack([np.stack(edges, 1) for edges in tiles], 1)


def _in_inputs(objects: Objects, tiles: Tiles, input_px: NDArray[np.int64]) -> Objects:
    """Objects of tiles as objects of inputs; those too small are ignored."""
    box_px = tiles.box_px[objects.example]
    start, size = np.tile(box_px[:, :2], 2), np.tile(box_px[:, 2:] - box_px[:, :2], 2)
    boxes_px = objects.boxes_yxyx * size + start
    small = (boxes_px[:, 2:] - boxes_px[:, :2]).prod(1) < MIN_SIDE_PX**2
    return replace(
        objects,
        boxes_yxyx=boxes_px / np.tile(input_px, 2),
        ignore=objects.ignore | small,
        example=tiles.input[objects.example],
    )


def input_recipe(augmentation: Iterable[messages.Augmentation]) -> InputRecipe | None:
    """The recipe that `pipeline.mirilla.augmentation` describes; None where it is empty.

    Raises:
        ConfigError: an entry without a step.
    """
    recipe, effects = InputRecipe(), PhotoEffects()
    for m in augmentation:
        match m.WhichOneof("step"):
            case "mosaic":
                recipe = replace(recipe, mosaic=Mosaic(m.mosaic.probability, m.mosaic.off_share))
            case "zoom_out":
                recipe = replace(recipe, zoom_out=ZoomOut(m.zoom_out.probability, m.zoom_out.most))
            case "object_zoom":
                zoom = m.object_zoom
                recipe = replace(recipe, object_zoom=ObjectZoom(zoom.probability, zoom.least_px, zoom.most_px))
            case "aspect_mix":
                recipe = replace(recipe, aspect=AspectMix(m.aspect_mix.letterbox_probability))
            case "photometric":
                effects = replace(effects, photometric=Photometric(m.photometric.probability, m.photometric.strength))
            case "grey":
                effects = replace(effects, grey=Grey(m.grey.probability))
            case "blur":
                effects = replace(effects, blur=Blur(m.blur.probability, m.blur.most_sigma_px))
            case "noise":
                effects = replace(effects, noise=Noise(m.noise.probability, m.noise.most_stddev))
            case "jpeg_traces":
                traces = JpegTraces(m.jpeg_traces.probability, m.jpeg_traces.least_quality)
                effects = replace(effects, jpeg_traces=traces)
            case _:
                names = ", ".join(field.name for field in m.DESCRIPTOR.oneofs_by_name["step"].fields)
                raise ConfigError("mirilla.augmentation: an entry has no step.", f"Use one of: {names}.")
    recipe = replace(recipe, effects=effects)
    return None if recipe == InputRecipe() else recipe
