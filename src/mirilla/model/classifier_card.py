"""The card of a classifier: a `model.json` with the labels and the input of a network that names a picture's class.

It has a format of its own, beside the detectors' (`mirilla.model.card`): there are no anchors and no boxes.
docs/models.md describes every key.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.errors import ModelError
from mirilla.files import explaining, sha256, write_text
from mirilla.model.card import FILE_NAME, find
from mirilla.model.json_fields import JsonFields
from mirilla.version import __version__

FORMAT, VERSION = "mirilla-classifier", 1
CONVERTERS = ("IDENTITY", "SOFTMAX")
MEAN, STDDEV = 128.0, 128.0  # (pixel - mean) / stddev, as Google's client normalises for its classifiers
THRESHOLD = 0.1


@dataclass(frozen=True)
class ClassifierCard:
    """The content of a classifier's model.json.

    labels: names of the classes, in the order of the scores.
    height_px, width_px: of the network's input, to which pictures are squashed.
    tensor, scores: names of the input and the output.
    converter: what turns the output into scores that sum to 1, one of CONVERTERS.
    threshold: classes with lower scores are not shown.
    file, file_sha256, target: of the model's file; the hash is empty until the card is saved.
    """

    labels: tuple[str, ...]
    height_px: int
    width_px: int
    tensor: str
    scores: str
    converter: str = "IDENTITY"
    mean: float = MEAN
    stddev: float = STDDEV
    name: str = "classifier"
    threshold: float = THRESHOLD
    licence: str | None = None
    file: str = ""
    file_sha256: str = ""
    target: str = "bonnet"
    made_by: str = ""

    def to_json(self) -> dict[str, object]:
        """The content of model.json."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "made_by": self.made_by or f"mirilla {__version__}",
            "licence": self.licence,
            "file": {"name": self.file, "sha256": self.file_sha256, "target": self.target},
            "labels": [{"id": i, "name": name} for i, name in enumerate(self.labels)],
            "input": {
                "tensor": self.tensor,
                "height": self.height_px,
                "width": self.width_px,
                "channels": "RGB",
                "resize": "squash",
                "mean": self.mean,
                "stddev": self.stddev,
            },
            "outputs": {"scores": self.scores},
            "score_converter": self.converter,
            "recommended_threshold": self.threshold,
        }


def save(card: ClassifierCard, model_path: Path, path: Path) -> ClassifierCard:
    """Write the card of a model's file, which must exist; returns it with the file's name and hash.

    Raises:
        MirillaError: a file cannot be read or written.
    """
    card = replace(card, file=model_path.name, file_sha256=sha256(model_path))
    write_text(path, json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n")
    return card


def load_beside(model_path: Path) -> ClassifierCard | None:
    """The classifier's card beside a model's file; None if there is none, or one of a detector.

    Raises:
        ModelError: the card is damaged, or belongs to another file.
        MirillaError: it cannot be read.
    """
    path = find(model_path)
    if path is None:
        return None
    with explaining(path):
        content = path.read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None  # reported by whoever reads it as a detector's card
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return None
    card = parse(value, os.fspath(path))
    if sha256(model_path) != card.file_sha256:
        raise ModelError(
            f"{path}: it belongs to another file than {model_path} (their hashes differ).",
            "Compile again, or copy both files together from where they were made.",
        )
    return card


def parse(content: dict[str, object], where: str = FILE_NAME) -> ClassifierCard:
    """A card from parsed JSON.

    Raises:
        ModelError: a key is missing or has a wrong value.
    """
    fields = JsonFields(where, "Compile the model again.")
    if content.get("version") != VERSION:
        raise fields.error("version", f"is {content.get('version')!r}, but this program reads version {VERSION}")
    image, file = fields.get(content, "input", dict), fields.get(content, "file", dict)
    labels = fields.get(content, "labels", list)
    converter = fields.get(content, "score_converter", str)
    if converter not in CONVERTERS:
        raise fields.error("score_converter", f"is '{converter}'. Choose from: {', '.join(CONVERTERS)}")
    height, width = (fields.get(image, side, int, "input.") for side in ("height", "width"))
    stddev = fields.number(image.get("stddev"), "input.stddev")
    if not labels or min(height, width) < 1 or stddev == 0:
        raise fields.error("labels", "must not be empty, and sides and stddev must not be 0")
    licence = content.get("licence")
    return ClassifierCard(
        labels=tuple(
            fields.get(fields.plain(dict, label, f"labels[{i}]"), "name", str, f"labels[{i}].")
            for i, label in enumerate(labels)
        ),
        height_px=height,
        width_px=width,
        tensor=fields.get(image, "tensor", str, "input."),
        scores=fields.get(fields.get(content, "outputs", dict), "scores", str, "outputs."),
        converter=converter,
        mean=fields.number(image.get("mean"), "input.mean"),
        stddev=stddev,
        name=fields.get(content, "name", str),
        threshold=fields.number(content.get("recommended_threshold"), "recommended_threshold"),
        licence=None if licence is None else fields.plain(str, licence, "licence"),
        file=fields.get(file, "name", str, "file."),
        file_sha256=fields.get(file, "sha256", str, "file.").lower(),
        target=fields.get(file, "target", str, "file."),
        made_by=fields.get(content, "made_by", str),
    )


def read_labels(path: str | os.PathLike[str], classes: int) -> tuple[str, ...]:
    """The labels of a text file, one a line, as `retrained_labels.txt` and Google's `*_labels.txt` have them.

    A line may begin with its number ('0 face', '0:face').

    Raises:
        ModelError: the file has another number of labels than the network has classes.
        MirillaError: it cannot be read.
    """
    with explaining(path):
        lines = Path(path).read_text("utf-8-sig", "replace").splitlines()
    labels = [line.strip() for line in lines if line.strip()]
    numbered = [re.fullmatch(r"(\d+)[ :\t]+(.+)", label) for label in labels]
    if labels and all(match is not None and int(match[1]) == i for i, match in enumerate(numbered)):
        labels = [match[2].strip() for match in numbered if match is not None]
    if len(labels) != classes:
        raise ModelError(
            f"{os.fspath(path)}: {len(labels)} labels, but the network has {classes} classes.",
            "Give the labels that the network was trained with, one a line.",
        )
    return tuple(labels)


def find_labels(model_path: Path) -> Path | None:
    """A text file with labels beside a model: STEM_labels.txt, labels.txt or retrained_labels.txt."""
    names = (f"{model_path.stem}_labels.txt", "labels.txt", "retrained_labels.txt")
    return next((path for name in names if (path := model_path.with_name(name)).is_file()), None)


def labels_for(model_path: Path, given: str | None, classes: int) -> tuple[tuple[str, ...], str]:
    """The labels of a classifier without a card, and a note about where they come from.

    Args:
        given: a text file; None looks for one beside the model.

    Raises:
        ModelError: see `read_labels`.
    """
    path = Path(given) if given else find_labels(model_path)
    if path is None:
        return tuple(f"class {i}" for i in range(classes)), "The classes have no names (give them with --labels FILE)."
    return read_labels(path, classes), f"Labels: {path}"


def output_classes(shapes: Sequence[tuple[int, ...]]) -> int | None:
    """How many classes a network with these output shapes (without the batch) names; None if it is no classifier."""
    if len(shapes) != 1 or len(shapes[0]) < 1:
        return None
    *sides, classes = shapes[0]
    return classes if classes > 1 and all(side == 1 for side in sides) else None
