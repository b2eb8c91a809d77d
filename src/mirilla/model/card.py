"""`model.json`: what a model cannot say of itself, beside the model's file.

It carries labels, the network's input and outputs, anchors, box-coder scales, thresholds, licence, metrics
and the hash of the file it belongs to, so that a program that decodes the outputs needs nothing built in.
docs/models.md describes every key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ConfigError, ModelError
from mirilla.files import explaining, sha256, write_text
from mirilla.labels import Label, LabelMap
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.layers import architecture
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec

FILE_NAME = "model.json"
FORMAT, VERSION = "mirilla-model", 1
TARGETS = ("frozen_graph", "bonnet", "onnx", "tflite")
INPUT = {"tensor": "Preprocessor/sub", "image_tensor": "image_tensor"}
OUTPUTS = {"box_codes": "concat", "class_logits": "concat_1"}
FINAL_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class ModelCard:
    """The content of a model.json.

    spec: the network, its anchors' generator, box coder and post-processing.
    labels: of the classes; ids are those of detection_classes.
    anchors_yxyx: (A, 4) float32; generated from the spec when not given.
    name: of the model, for people.
    file, file_sha256: the file it belongs to, without folder, and its hash; empty until it is written.
    target: what the file is, one of TARGETS.
    threshold: scores from here on are worth showing.
    licence: of the weights, an SPDX name where there is one; None when nobody said.
    metrics: one mapping for each figure: name, value, data set, protocol.
    training: what the weights were made from: steps, data sets, and the like.
    made_by: program and version.
    """

    spec: ModelSpec
    labels: LabelMap
    anchors_yxyx: NDArray[np.float32] = None  # type: ignore[assignment]
    name: str = "detector"
    file: str = ""
    file_sha256: str = ""
    target: str = "frozen_graph"
    threshold: float = DEFAULT_THRESHOLD
    licence: str | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    made_by: str = ""

    def __post_init__(self):
        if self.anchors_yxyx is None:
            maps = architecture(self.spec).feature_map_shapes
            made = anchors_yxyx(self.spec.anchors, maps, self.spec.height_px, self.spec.width_px)
            object.__setattr__(self, "anchors_yxyx", made)
        if self.labels.max_id > self.spec.num_classes:
            raise ModelError(
                f"The label map goes up to id {self.labels.max_id}, but the network has "
                f"{self.spec.num_classes} classes.",
                "Give the label map that the model was trained with.",
            )

    def to_json(self) -> dict[str, Any]:
        """What model.json holds; see docs/models.md."""
        spec = dataclasses.asdict(self.spec)
        for part, written in ((self.spec.anchors, spec["anchors"]), (self.spec, spec)):
            for one in dataclasses.fields(part):
                if one.metadata.get("seldom") and getattr(part, one.name) == one.default:
                    del written[one.name]
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
            "anchors": {"generator": spec.pop("anchors"), "boxes_yxyx": _exact(self.anchors_yxyx)},
            "box_coder": spec.pop("box_coder"),
            "post_processing": spec.pop("post_processing"),
            "recommended_threshold": self.threshold,
            "network": spec,
            "metrics": _plain(self.metrics),
            "training": _plain(self.training),
        }


def save(
    card: ModelCard, model_path: str | os.PathLike[str], *, path: str | os.PathLike[str] | None = None
) -> ModelCard:
    """Write model.json for a model's file, which must be there already.

    Args:
        model_path: the file whose name and hash go into the card.
        path: of the card; model.json beside the file by default.

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
    """The text of model.json: one anchor a line, the rest indented."""
    content = card.to_json()
    boxes = content["anchors"]["boxes_yxyx"]
    content["anchors"]["boxes_yxyx"] = []
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join("      " + json.dumps(box) for box in boxes)
    return text.replace('"boxes_yxyx": []', f'"boxes_yxyx": [\n{lines}\n    ]') + "\n"


def load(path: str | os.PathLike[str], model_path: str | os.PathLike[str] | None = None) -> ModelCard:
    """Read a model.json.

    Args:
        path: the card.
        model_path: the model's file; when given, its hash is compared with the card's.

    Raises:
        ModelError: no JSON, another format or a newer version, a key that is missing or of the wrong type,
            or the
            hash is another file's.
        MirillaError: a file cannot be read.
    """
    with explaining(path):
        raw = Path(path).read_bytes()
    card = loads(raw, os.fspath(path))
    if model_path is not None and sha256(model_path) != card.file_sha256:
        raise ModelError(
            f"{os.fspath(path)}: it belongs to a file with SHA-256 {card.file_sha256[:16]}..., but "
            f"{os.fspath(model_path)} is another one (the file was changed, or model.json comes "
            "from elsewhere).",
            "Export again, or copy both files together from where they were made.",
        )
    return card


def loads(content: bytes | str, where: str = FILE_NAME) -> ModelCard:
    """Parse the text of a model.json; see `load`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not JSON ({error}).", "Export the model again.") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ModelError(
            f"{where}: not a model.json of Mirilla (the key 'format' is not '{FORMAT}').",
            "Export the model with 'mirilla export'.",
        )
    if value.get("version") != VERSION:
        raise ModelError(
            f"{where}: version {value.get('version')!r}; this program reads version {VERSION}.",
            "Update Mirilla, or export the model again.",
        )
    return _Reader(where).card(value)


def find(model_path: str | os.PathLike[str]) -> Path | None:
    """The card that belongs to a model's file: NAME.model.json or model.json beside it, or None.

    A model.json that names another file that stands beside it is that file's, and is passed over.
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
        return shared  # broken: reading it will say how
    other = name != model_path.name and isinstance(name, str) and shared.with_name(name or ".").is_file()
    return None if other else shared


def _made_by() -> str:
    from mirilla.version import __version__

    return f"mirilla {__version__}"


def _exact(boxes: NDArray[np.float32]) -> list[list[float]]:
    """The shortest decimals that give the same float32 again."""
    return [[float(str(number)) for number in row] for row in np.asarray(boxes, np.float32)]


def _plain(value: Any) -> Any:
    """The same with JSON's types alone: numpy's numbers become Python's, what is no number null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


class _Reader:
    """Takes a parsed JSON apart; every error names the key."""

    def __init__(self, where: str):
        self.where = where

    def error(self, key: str, rule: str) -> ModelError:
        return ModelError(f"{self.where}: '{key}' {rule}.", "Export the model again.")

    def card(self, value: dict[str, Any]) -> ModelCard:
        file = self.get(value, "file", dict)
        anchors = self.get(value, "anchors", dict)
        network = dict(self.get(value, "network", dict))
        network |= {
            "anchors": self.get(anchors, "generator", dict, "anchors."),
            "box_coder": self.get(value, "box_coder", dict),
            "post_processing": self.get(value, "post_processing", dict),
        }
        threshold = self.number(value.get("recommended_threshold"), "recommended_threshold")
        if not 0 <= threshold <= 1:
            raise self.error("recommended_threshold", "must lie between 0 and 1")
        licence = value.get("licence")
        if licence is not None and not isinstance(licence, str):
            raise self.error("licence", "must be a text or null")
        target = self.get(file, "target", str, "file.")
        if target not in TARGETS:
            raise self.error("file.target", f"is '{target}'; known are {', '.join(TARGETS)}")
        metrics = self.get(value, "metrics", list)
        if not all(isinstance(one, dict) for one in metrics):
            raise self.error("metrics", "must be a list of objects")
        spec = self.dataclass(ModelSpec, network, "network")
        try:
            return ModelCard(
                spec=spec,
                labels=self.labels(self.get(value, "labels", list)),
                anchors_yxyx=self.anchors(self.get(anchors, "boxes_yxyx", list, "anchors.")),
                name=self.get(value, "name", str),
                file=self.get(file, "name", str, "file."),
                file_sha256=self.get(file, "sha256", str, "file.").lower(),
                target=target,
                threshold=threshold,
                licence=licence,
                metrics=tuple(metrics),
                training=self.get(value, "training", dict),
                made_by=self.get(value, "made_by", str),
            )
        except ConfigError as error:
            raise ModelError(f"{self.where}: {error.what}", error.remedy) from None

    def get(self, value: Mapping[str, Any], key: str, kind: type, prefix: str = "") -> Any:
        if key not in value:
            raise self.error(prefix + key, "is missing")
        if not isinstance(value[key], kind):
            names = {dict: "an object", list: "a list", str: "a text"}
            raise self.error(prefix + key, f"must be {names[kind]}")
        return value[key]

    def number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(key, "must be a finite number")
        return float(value)

    def labels(self, value: list) -> LabelMap:
        items = []
        for i, one in enumerate(value):
            key = f"labels[{i}]"
            if not isinstance(one, dict):
                raise self.error(key, "must be an object")
            number = one.get("id")
            if isinstance(number, bool) or not isinstance(number, int):
                raise self.error(f"{key}.id", "must be a whole number")
            name = self.get(one, "name", str, f"{key}.")
            shown = one.get("display_name", name)
            if not isinstance(shown, str):
                raise self.error(f"{key}.display_name", "must be a text")
            items.append(Label(number, name, "" if shown == name else shown))
        return LabelMap(tuple(items))

    def anchors(self, value: list) -> NDArray[np.float32]:
        rows = [row for row in value if isinstance(row, list) and len(row) == 4]
        if not value or len(rows) != len(value):
            raise self.error("anchors.boxes_yxyx", "must be a list of lists of four numbers")
        flat = [self.number(one, "anchors.boxes_yxyx") for row in rows for one in row]
        return np.array(flat, np.float64).astype(np.float32).reshape(-1, 4)

    def dataclass(self, kind: type, value: Mapping[str, Any], path: str) -> Any:
        """A frozen dataclass of numbers, texts, tuples and further ones; keys must match exactly."""
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        value = {one.name: one.default for one in fields if one.metadata.get("seldom")} | dict(value)
        names = [one.name for one in fields]
        for key in value:
            if key not in names:
                raise self.error(f"{path}.{key}", "is not known")
        for name in names:
            if name not in value:
                raise self.error(f"{path}.{name}", "is missing")
        return kind(**{name: self.typed(hints[name], value[name], f"{path}.{name}") for name in names})

    def typed(self, hint: Any, value: Any, key: str) -> Any:
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise self.error(key, "must be an object")
            return self.dataclass(hint, value, key)
        if typing.get_origin(hint) is tuple:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise self.error(key, "must be a list")
            inner, *rest = typing.get_args(hint)
            if rest != [...] and len(value) != 1 + len(rest):
                raise self.error(key, f"must be a list of {1 + len(rest)} values")
            return tuple(self.typed(inner, one, key) for one in value)
        if isinstance(hint, types.UnionType):
            if value is None:
                return None
            inner = next(one for one in typing.get_args(hint) if one is not type(None))
            return self.typed(inner, value, key)
        if hint is float:
            return self.number(value, key)
        if isinstance(value, bool) is not (hint is bool) or not isinstance(value, typing.cast(type, hint)):
            words = {int: "a whole number", str: "a text", bool: "true or false"}
            raise self.error(key, f"must be {words.get(hint, hint)}")
        return value
