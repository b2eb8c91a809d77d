"""The model card: `model.json` beside a model's file, with what the file itself does not contain.

It contains labels, the network's input and outputs, anchors, box-coder scales, thresholds, licence, metrics and the
hash of the model's file, so that a program can decode the outputs without built-in knowledge of the model.
docs/models.md describes every key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ConfigError, ModelError
from mirilla.files import explaining, sha256, write_text
from mirilla.labels import Label, LabelMap
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.json_fields import JsonFields
from mirilla.model.layers import architecture
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec

FILE_NAME = "model.json"
FORMAT, VERSION = "mirilla-model", 1
# kinds of model files: the frozen graph, the bonnet's, and those of `mirilla.targets.table`
TARGETS = (
    "frozen_graph",
    "bonnet",
    "onnx",
    "onnx-heads",
    "tflite",
    "tflite-fp16",
    "tflite-int8",
    "tflite-detect",
    "edgetpu",
    "ethos-u",
    "opencv-yunet",
    "openvino-ssd",
    "ncnn",
    "c",
    "web",
)
INPUT = {"tensor": "Preprocessor/sub", "image_tensor": "image_tensor"}
OUTPUTS = {"box_codes": "concat", "class_logits": "concat_1"}
FINAL_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class ModelCard:
    """The content of a model.json.

    spec: the network, its anchor generator, box coder and post-processing.
    labels: the label map; its ids are the values of detection_classes.
    anchors_yxyx: (A, 4) float32; generated from the spec if not given.
    name: display name of the model.
    file, file_sha256: the model file's name without its folder, and its hash; empty until the card is saved.
    target: the kind of the file, one of TARGETS.
    threshold: recommended minimum score for display.
    licence: licence of the weights, as an SPDX name if possible; None if unknown.
    metrics: a mapping per metric: name, value, data set, protocol.
    training: how the weights were made: steps, data sets, and so on.
    made_by: program and version.
    """

    spec: ModelSpec
    labels: LabelMap
    anchors_yxyx: NDArray[np.float32] = None  # type: ignore[assignment]  # set in __post_init__
    name: str = "detector"
    file: str = ""
    file_sha256: str = ""
    target: str = "frozen_graph"
    threshold: float = DEFAULT_THRESHOLD
    licence: str | None = None
    metrics: tuple[Mapping[str, object], ...] = ()
    training: Mapping[str, object] = field(default_factory=dict)
    made_by: str = ""

    def __post_init__(self):
        if self.anchors_yxyx is None:
            maps = architecture(self.spec).feature_map_shapes
            generated = anchors_yxyx(self.spec.anchors, maps, self.spec.height_px, self.spec.width_px)
            object.__setattr__(self, "anchors_yxyx", generated)
        if self.labels.max_id > self.spec.num_classes:
            raise ModelError(
                f"The label map has ids up to {self.labels.max_id}, but the network has "
                f"{self.spec.num_classes} classes.",
                "Give the label map that the model was trained with.",
            )

    def to_json(self) -> dict[str, object]:
        """The content of model.json; see docs/models.md."""
        network = dataclasses.asdict(self.spec)
        for part, written in ((self.spec.anchors, network["anchors"]), (self.spec, network)):
            for part_field in dataclasses.fields(part):
                if part_field.metadata.get("optional") and getattr(part, part_field.name) == part_field.default:
                    del written[part_field.name]
        anchors = {"generator": network.pop("anchors"), "boxes_yxyx": _shortest_decimals(self.anchors_yxyx)}
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "made_by": self.made_by or _made_by(),
            "licence": self.licence,
            "file": {"name": self.file, "sha256": self.file_sha256, "target": self.target},
            "labels": [{"id": label.id, "name": label.name, "display_name": label.shown} for label in self.labels],
            "input": {
                **INPUT,
                "height": self.spec.height_px,
                "width": self.spec.width_px,
                "channels": "RGB",
                "resize": self.spec.resize,
                "scale": INPUT_SCALE,
                "offset": INPUT_OFFSET,
                "mean": 127.5,
                "stddev": 127.5,
            },
            "outputs": {**OUTPUTS, "detections": list(FINAL_OUTPUTS)},
            "anchors": anchors,
            "box_coder": network.pop("box_coder"),
            "post_processing": network.pop("post_processing"),
            "recommended_threshold": self.threshold,
            "network": network,
            "metrics": _json_value(self.metrics),
            "training": _json_value(self.training),
        }


def save(
    card: ModelCard, model_path: str | os.PathLike[str], *, path: str | os.PathLike[str] | None = None
) -> ModelCard:
    """Write model.json for a model's file, which must exist.

    Args:
        model_path: the file whose name and hash the card records.
        path: the card's path; by default model.json beside the file.

    Returns:
        The card as written.

    Raises:
        MirillaError: the file cannot be read or the card cannot be written.
    """
    model_path = Path(model_path)
    card = replace(card, file=model_path.name, file_sha256=sha256(model_path), made_by=card.made_by or _made_by())
    write_text(path or model_path.parent / FILE_NAME, dumps(card))
    return card


def dumps(card: ModelCard) -> str:
    """The text of model.json: an anchor per line, the rest indented."""
    content = card.to_json()
    anchors = content["anchors"]
    assert isinstance(anchors, dict)
    boxes, anchors["boxes_yxyx"] = anchors["boxes_yxyx"], []
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join("      " + json.dumps(box) for box in boxes)
    return text.replace('"boxes_yxyx": []', f'"boxes_yxyx": [\n{lines}\n    ]') + "\n"


def load(path: str | os.PathLike[str], model_path: str | os.PathLike[str] | None = None) -> ModelCard:
    """Read a model.json.

    Args:
        path: the card.
        model_path: the model's file; if given, its hash is compared with the card's.

    Raises:
        ModelError: the file is not JSON, has another format or version, a key is missing or of the wrong type, or the
            hash does not match the model's file.
        MirillaError: a file cannot be read.
    """
    with explaining(path):
        raw = Path(path).read_bytes()
    card = loads(raw, os.fspath(path))
    if model_path is not None and sha256(model_path) != card.file_sha256:
        raise ModelError(
            f"{os.fspath(path)}: it belongs to a file with SHA-256 {card.file_sha256[:16]}..., which is not that of "
            f"{os.fspath(model_path)} (the file was changed, or model.json is from another model).",
            "Export again, or copy both files together from where they were made.",
        )
    return card


def loads(content: bytes | str, where: str = FILE_NAME) -> ModelCard:
    """Parse the text of a model.json; see `load`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not a JSON file ({error}).", "Export the model again.") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ModelError(
            f"{where}: not a model.json of Mirilla (the key 'format' is not '{FORMAT}').",
            "Export the model with 'mirilla export'.",
        )
    if value.get("version") != VERSION:
        raise ModelError(
            f"{where}: version {value.get('version')!r}, but this program reads version {VERSION}.",
            "Update Mirilla, or export the model again.",
        )
    return _parse(value, where)


def find(model_path: str | os.PathLike[str]) -> Path | None:
    """The card of a model's file: NAME.model.json or model.json beside it, or None.

    A model.json that names another file of the folder belongs to that file, and is ignored.
    """
    model_path = Path(model_path)
    own = model_path.with_name(f"{model_path.stem}.model.json")
    if own.is_file():
        return own
    shared = model_path.with_name(FILE_NAME)
    if not shared.is_file():
        return None
    try:
        name = json.loads(shared.read_bytes())["file"]["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return shared  # broken; loading it will report why
    other = name != model_path.name and isinstance(name, str) and shared.with_name(name or ".").is_file()
    return None if other else shared


def _made_by() -> str:
    from mirilla.version import __version__

    return f"mirilla {__version__}"


def _shortest_decimals(boxes: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimals that convert back to the same float32."""
    return [[float(str(number)) for number in row] for row in np.asarray(boxes, np.float32)]


def _json_value(value: object) -> object:
    """Convert to JSON types: numpy numbers to Python's, NaN and infinities to null, other types to strings."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(element) for element in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _parse(content: dict[str, object], where: str) -> ModelCard:
    """A card from the parsed JSON."""
    fields = JsonFields(where, "Export the model again.")
    file = fields.get(content, "file", dict)
    anchors = fields.get(content, "anchors", dict)
    network = fields.get(content, "network", dict) | {
        "anchors": fields.get(anchors, "generator", dict, "anchors."),
        "box_coder": fields.get(content, "box_coder", dict),
        "post_processing": fields.get(content, "post_processing", dict),
    }
    target = fields.get(file, "target", str, "file.")
    if target not in TARGETS:
        raise fields.error("file.target", f"is '{target}', which is unknown. Choose from: {', '.join(TARGETS)}")
    threshold = fields.number(content.get("recommended_threshold"), "recommended_threshold")
    if not 0 <= threshold <= 1:
        raise fields.error("recommended_threshold", "must lie between 0 and 1")
    licence = content.get("licence")
    try:
        return ModelCard(
            spec=fields.dataclass(ModelSpec, network, "network"),
            labels=_parse_labels(fields, fields.get(content, "labels", list)),
            anchors_yxyx=_parse_anchors(fields, fields.get(anchors, "boxes_yxyx", list, "anchors.")),
            name=fields.get(content, "name", str),
            file=fields.get(file, "name", str, "file."),
            file_sha256=fields.get(file, "sha256", str, "file.").lower(),
            target=target,
            threshold=threshold,
            licence=None if licence is None else fields.plain(str, licence, "licence"),
            metrics=tuple(fields.plain(dict, metric, "metrics") for metric in fields.get(content, "metrics", list)),
            training=fields.get(content, "training", dict),
            made_by=fields.get(content, "made_by", str),
        )
    except ConfigError as error:
        raise ModelError(f"{where}: {error.what}", error.remedy) from None


def _parse_labels(fields: JsonFields, values: list[object]) -> LabelMap:
    labels = []
    for i, value in enumerate(values):
        key = f"labels[{i}]"
        label = fields.plain(dict, value, key)
        if "id" not in label:
            raise fields.error(f"{key}.id", "must be a whole number")
        number = fields.plain(int, label["id"], f"{key}.id")
        name = fields.get(label, "name", str, f"{key}.")
        shown = fields.plain(str, label.get("display_name", name), f"{key}.display_name")
        labels.append(Label(number, name, "" if shown == name else shown))
    return LabelMap(tuple(labels))


def _parse_anchors(fields: JsonFields, values: list[object]) -> NDArray[np.float32]:
    key = "anchors.boxes_yxyx"
    rows = [row for row in values if isinstance(row, list) and len(row) == 4]
    if not values or len(rows) != len(values):
        raise fields.error(key, "must be a list of lists of four numbers")
    numbers = [fields.number(number, key) for row in rows for number in row]
    return np.array(numbers, np.float64).astype(np.float32).reshape(-1, 4)
