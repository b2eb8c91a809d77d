"""Named models: the sample's network, and variants of it that the bonnet takes at 256 px.

zoo.apply("kit-s8", pipeline)     # then anchors fitted to the data: mirilla.config.anchor_fit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mirilla.config import Pipeline, anchor_fit
from mirilla.config.to_spec import model_spec, write_anchors
from mirilla.errors import UsageError
from mirilla.model.layers import EXTRA_MAPS, FIRST_MAPS, architecture
from mirilla.model.spec import AnchorSpec

EXTRACTOR = "embedded_ssd_mobilenet_v1"
STRIDE_8_MAPS = ("Conv2d_5_pointwise", *FIRST_MAPS)
EXTRA_ANCHORS = 6  # per location of an extra map


@dataclass(frozen=True)
class ZooModel:
    """What a named model changes in the sample's pipeline.

    feature_maps: of the base; first_anchors: anchors per location of each, finest first. The extra maps have 6.
    """

    name: str
    depth_multiplier: float
    description: str
    feature_maps: tuple[str, ...] = FIRST_MAPS
    first_anchors: tuple[int, ...] = (3, 6)
    min_depth: int = 16

    @property
    def counts(self) -> tuple[int, ...]:
        """Anchors per location, map by map."""
        return (*self.first_anchors, *(EXTRA_ANCHORS for _ in EXTRA_MAPS[EXTRACTOR]))


def _pair(name: str, depth_multiplier: float, description: str) -> tuple[ZooModel, ZooModel]:
    return (
        ZooModel(name, depth_multiplier, description),
        ZooModel(
            f"{name}-s8", depth_multiplier, f"{description}; and a head on the stride-8 map", STRIDE_8_MAPS, (2, 3, 6)
        ),
    )


_MODELS = (
    *_pair("kit", 0.125, "the sample's network"),
    *_pair("kit-mid", 0.1875, "half as wide again"),
    *_pair("kit-wide", 0.25, "twice as wide"),
    *_pair("kit-widest", 0.375, "three times as wide: the most that the arena holds at 256 px"),
)
MODELS: Mapping[str, ZooModel] = {one.name: one for one in _MODELS}

# name -> {column: AP} on ilc2021, letterboxed, compiled for the bonnet, all trained alike and shortly (on 28,800
# pictures): benchmarks/accuracy.md, "The zoo"
ACCURACY: dict[str, dict[str, float]] = {
    "kit": {"AP all": 0.435, "AP >= 16 px": 0.66, "AP >= 24 px": 0.757},
    "kit-s8": {"AP all": 0.434, "AP >= 16 px": 0.635, "AP >= 24 px": 0.719},
    "kit-mid": {"AP all": 0.487, "AP >= 16 px": 0.714, "AP >= 24 px": 0.792},
    "kit-mid-s8": {"AP all": 0.525, "AP >= 16 px": 0.732, "AP >= 24 px": 0.8},
    "kit-wide": {"AP all": 0.552, "AP >= 16 px": 0.78, "AP >= 24 px": 0.836},
    "kit-wide-s8": {"AP all": 0.558, "AP >= 16 px": 0.763, "AP >= 24 px": 0.837},
    "kit-widest": {"AP all": 0.561, "AP >= 16 px": 0.781, "AP >= 24 px": 0.836},
    "kit-widest-s8": {"AP all": 0.592, "AP >= 16 px": 0.787, "AP >= 24 px": 0.859},
}
ACCURACY_COLUMNS = ("AP all", "AP >= 16 px", "AP >= 24 px")


def names() -> tuple[str, ...]:
    """All models' names, smallest first."""
    return tuple(MODELS)


def find(name: str) -> ZooModel:
    """A model by its name.

    Raises:
        UsageError: there is none.
    """
    if name not in MODELS:
        raise UsageError(f"There is no model '{name}' in the zoo.", f"Use one of: {', '.join(MODELS)}.")
    return MODELS[name]


def apply(name: str, pipeline: Pipeline) -> None:
    """Make a pipeline (of `mirilla.config.sample`) that of a named model.

    With the sample's own maps its anchor generator stays in force. Other maps get anchors of one shape whose sizes are
    spread evenly over what each map is responsible for; fitting them to the data comes afterwards.

    Raises:
        UsageError: no such model.
    """
    one = find(name)
    ssd, ours = pipeline.model.ssd, pipeline.mirilla
    ssd.feature_extractor.type = EXTRACTOR
    ssd.feature_extractor.depth_multiplier, ssd.feature_extractor.min_depth = one.depth_multiplier, one.min_depth
    ours.ClearField("feature_map")
    ours.ClearField("anchor_map")
    ssd.anchor_generator.ssd_anchor_generator.num_layers = len(one.counts)
    if one.feature_maps != FIRST_MAPS:
        ours.feature_map.extend(one.feature_maps)
        write_anchors(pipeline, spread(pipeline, one.counts))


def spread(pipeline: Pipeline, counts: tuple[int, ...]) -> anchor_fit.Boxes:
    """Anchors that know no data: square in the photo's pixels, sizes spread evenly in their logarithm."""
    given = model_spec(pipeline)
    shapes = architecture(replace(given, anchors=AnchorSpec(num_layers=len(counts)))).feature_map_shapes
    return anchor_fit.fit((), shapes, counts)
