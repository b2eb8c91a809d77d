"""Named models: the sample's network, and variants of it that the bonnet can run at 256 px.

zoo.apply("kit-s8", pipeline)     # then fit the anchors to the data: mirilla.config.anchor_fit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mirilla.config import anchor_fit
from mirilla.config.pipeline import Pipeline
from mirilla.config.to_spec import model_spec, write_anchors
from mirilla.errors import UsageError
from mirilla.model.layers import EXTRA_MAPS, FIRST_MAPS, architecture
from mirilla.model.spec import AnchorSpec, ModelSpec

EXTRACTOR = "embedded_ssd_mobilenet_v1"
STRIDE_8_MAPS = ("Conv2d_5_pointwise", *FIRST_MAPS)
EXTRA_MAP_ANCHORS = 6  # per location


@dataclass(frozen=True)
class ZooModel:
    """What a named model changes in the sample pipeline.

    Attributes:
        feature_maps: maps of the base network that get predictors, finest first.
        first_anchors: anchors per location of each of these maps; the extra maps have EXTRA_MAP_ANCHORS.
    """

    name: str
    depth_multiplier: float
    description: str
    feature_maps: tuple[str, ...] = FIRST_MAPS
    first_anchors: tuple[int, ...] = (3, 6)
    min_depth: int = 16

    @property
    def counts(self) -> tuple[int, ...]:
        """Anchors per location of each map, finest first."""
        return (*self.first_anchors, *(EXTRA_MAP_ANCHORS for _ in EXTRA_MAPS[EXTRACTOR]))


def _pair(name: str, depth_multiplier: float, description: str) -> tuple[ZooModel, ZooModel]:
    return (
        ZooModel(name, depth_multiplier, description),
        ZooModel(
            f"{name}-s8", depth_multiplier, f"{description}, with a head on the stride-8 map", STRIDE_8_MAPS, (2, 3, 6)
        ),
    )


_MODELS = (
    *_pair("kit", 0.125, "the sample's network"),
    *_pair("kit-mid", 0.1875, "half as wide again"),
    *_pair("kit-wide", 0.25, "twice as wide"),
    *_pair("kit-widest", 0.375, "three times as wide: the widest that fits the arena at 256 px"),
)
MODELS: Mapping[str, ZooModel] = {model.name: model for model in _MODELS}

# name -> {column: AP} on ilc2021, letterboxed, compiled for the bonnet; all trained with the same short schedule
# (28,800 images): benchmarks/accuracy.md, "The zoo"
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
    """The names of all models, smallest first."""
    return tuple(MODELS)


def find(name: str) -> ZooModel:
    """A model by its name.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in MODELS:
        raise UsageError(f"Unknown model '{name}'.", f"Choose from: {', '.join(MODELS)}.")
    return MODELS[name]


def apply(name: str, pipeline: Pipeline) -> None:
    """Change a pipeline (from `mirilla.config.sample`) in place to that of a named model.

    A model with the sample's feature maps keeps the sample's anchor generator. Others get `spread` anchors, which
    should be fitted to the data afterwards.

    Raises:
        UsageError: the name is unknown.
    """
    model = find(name)
    ssd, options = pipeline.model.ssd, pipeline.mirilla
    ssd.feature_extractor.type = EXTRACTOR
    ssd.feature_extractor.depth_multiplier, ssd.feature_extractor.min_depth = model.depth_multiplier, model.min_depth
    options.ClearField("feature_map")
    options.ClearField("anchor_map")
    ssd.anchor_generator.ssd_anchor_generator.num_layers = len(model.counts)
    if model.feature_maps != FIRST_MAPS:
        options.feature_map.extend(model.feature_maps)
        write_anchors(pipeline, spread(model_spec(pipeline), model.counts))


def spread(spec: ModelSpec, counts: tuple[int, ...]) -> anchor_fit.Boxes:
    """Square anchors whose sizes are spread evenly, on a log scale, over the range of each map; no data is needed."""
    shapes = architecture(replace(spec, anchors=AnchorSpec(num_layers=len(counts)))).feature_map_shapes
    return anchor_fit.fit((), shapes, counts)
