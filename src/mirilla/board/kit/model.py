"""A compiled model and its model.json."""

import hashlib
import json
import os

from .errors import KitError

VERSION = 1  # of model.json
DETECTOR, CLASSIFIER = "mirilla-model", "mirilla-classifier"  # its formats
CONVERTERS = ("SIGMOID", "SOFTMAX", "IDENTITY")
SUFFIX = ".binaryproto"


def _bonnet_name(graph: bytes) -> str:
    """The name under which the bonnet keeps a model.

    It holds a hash of the bytes, since the client does not send a model whose name the bonnet already knows.
    """
    return "mirilla-" + hashlib.sha256(graph).hexdigest()[:16]


class Classifier:
    """The contents of a classifier's model.json, and the compiled model's bytes.

    labels: class id -> name to show, for every class.
    """

    letterbox = False

    def __init__(self, card: dict, graph: bytes, path: str):
        self.graph = graph
        try:
            self.name = str(card["name"])
            self.labels = {int(label["id"]): str(label["name"]) for label in card["labels"]}
            image = card["input"]
            self.height, self.width = int(image["height"]), int(image["width"])
            self.mean, self.stddev = float(image["mean"]), float(image["stddev"])
            self.scores_name = str(card["outputs"]["scores"])
            self.output_names = (self.scores_name,)
            self.converter = str(card["score_converter"])
            self.threshold = float(card["recommended_threshold"])
        except KeyError as error:
            raise KitError("%s: %s is missing. Compile the model again." % (path, error))
        except (TypeError, ValueError, AttributeError) as error:
            raise KitError("%s: invalid value (%s). Compile the model again." % (path, error))
        if self.converter not in ("IDENTITY", "SOFTMAX") or not self.labels or self.stddev == 0:
            raise KitError("%s: no labels, or a value that this program does not know. Deploy again." % path)
        self.bonnet_name = _bonnet_name(graph)

    def label(self, class_id: int) -> str:
        """The name to show for a class."""
        return self.labels.get(class_id, "class %d" % class_id)


class Model:
    """The contents of model.json, and the compiled model's bytes.

    anchors: a list of (centre y, centre x, height, width), normalised.
    labels: class id -> name to show.
    scales: of the box coder: (y, x, height, width).
    bonnet_name: see `_bonnet_name`.
    """

    def __init__(self, card: dict, graph: bytes, path: str):
        self.graph = graph
        try:
            self._read(card)
        except KeyError as error:
            raise KitError("%s: %s is missing. Export and compile the model again." % (path, error))
        except (TypeError, ValueError, AttributeError) as error:
            raise KitError("%s: invalid value (%s). Export and compile the model again." % (path, error))
        if self.converter not in CONVERTERS:
            raise KitError(
                "%s: unknown score converter '%s'. Deploy the program and the model with the same Mirilla."
                % (path, self.converter)
            )
        if not self.anchors or self.classes < 1 or 0 in self.scales or self.stddev == 0:
            raise KitError(
                "%s: no anchors or classes, or a scale or stddev of 0. Export and compile the model again." % path
            )
        self.bonnet_name = _bonnet_name(graph)

    def _read(self, card: dict) -> None:
        self.name = str(card["name"])
        self.labels = {int(label["id"]): str(label.get("display_name") or label["name"]) for label in card["labels"]}
        image = card["input"]
        self.height, self.width = int(image["height"]), int(image["width"])
        self.mean, self.stddev = float(image["mean"]), float(image["stddev"])
        self.letterbox = image["resize"] == "letterbox"
        self.codes_name = str(card["outputs"]["box_codes"])
        self.logits_name = str(card["outputs"]["class_logits"])
        self.output_names = (self.codes_name, self.logits_name)
        self.anchors = []
        for ymin, xmin, ymax, xmax in card["anchors"]["boxes_yxyx"]:
            height, width = ymax - ymin, xmax - xmin
            self.anchors.append((ymin + height / 2, xmin + width / 2, height, width))
        coder = card["box_coder"]
        self.scales = tuple(float(coder[key]) for key in ("y_scale", "x_scale", "height_scale", "width_scale"))
        post = card["post_processing"]
        self.score_threshold = float(post["score_threshold"])
        self.iou_threshold = float(post["iou_threshold"])
        self.max_per_class = int(post["max_detections_per_class"])
        self.max_total = int(post["max_total_detections"])
        self.converter = str(post["score_converter"])
        self.threshold = float(card["recommended_threshold"])
        self.classes = int(card["network"]["num_classes"])

    def label(self, class_id: int) -> str:
        """The name to show for a class."""
        return self.labels.get(class_id, "class %d" % class_id)


def load_model(folder: str) -> "Model | Classifier":
    """Load the compiled model of a folder: a .binaryproto and its model.json (or NAME.model.json).

    Raises:
        KitError: the folder has no model or several, the files do not belong together, or one is damaged.
    """
    graph_name, card_name = _find(folder)
    path = os.path.join(folder, card_name)
    graph = _read_bytes(os.path.join(folder, graph_name))
    card = _read_card(path)
    checked = card.get("file")
    expected = checked.get("sha256") if isinstance(checked, dict) else None
    actual = hashlib.sha256(graph).hexdigest()
    if expected != actual:
        raise KitError(
            "%s: it belongs to a file with SHA-256 %s..., but %s has %s... (damaged, or another model). "
            "Copy both again." % (path, str(expected)[:16], graph_name, actual[:16])
        )
    return Classifier(card, graph, path) if card["format"] == CLASSIFIER else Model(card, graph, path)


def _find(folder: str) -> "tuple[str, str]":
    """The names of the compiled model and of its model.json."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise KitError("%s: %s. Give the model's folder as --dir." % (folder, error.strerror))
    graphs = [name for name in names if name.endswith(SUFFIX)]
    if not graphs:
        raise KitError(
            "%s: no compiled model (*%s) in this folder. Copy one there together with its model.json, or give "
            "another --dir." % (folder, SUFFIX)
        )
    if len(graphs) > 1:
        raise KitError("%s: several compiled models: %s. Keep one." % (folder, ", ".join(graphs)))
    graph = graphs[0]
    for name in (graph[: -len(SUFFIX)] + ".model.json", "model.json"):
        if name in names:
            return graph, name
    raise KitError("%s: no model.json beside %s. Copy the one that 'mirilla compile' wrote." % (folder, graph))


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise KitError("%s: %s." % (path, error.strerror))


def _read_card(path: str) -> dict:
    content = _read_bytes(path)
    try:
        card = json.loads(content.decode("utf-8"))
    except (ValueError, RuntimeError) as error:  # RuntimeError: nested too deeply
        raise KitError("%s: not JSON (%s). Copy it again." % (path, error))
    if not isinstance(card, dict) or card.get("format") not in (DETECTOR, CLASSIFIER):
        raise KitError("%s: not a model.json of Mirilla. Copy the one that 'mirilla compile' wrote." % path)
    if card.get("version") != VERSION:
        raise KitError(
            "%s: version %r; this program reads version %d. Deploy the program and the model together."
            % (path, card.get("version"), VERSION)
        )
    return card
