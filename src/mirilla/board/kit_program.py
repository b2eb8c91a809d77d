#!/usr/bin/env python3
"""Runs a detector on an AIY Vision Kit; all it knows of the model it reads from model.json.

    python3 mirilla_kit.py --json
    python3 mirilla_kit.py --web 8080 --alert-command "/home/pi/ring.sh"

This is one file, for Python 3.5 and newer, that needs nothing but the standard library and what the kit's own
image has: aiy.vision to talk to the bonnet, picamera for the camera, Pillow for pictures that are no JPEG.
Everywhere else than on a Raspberry Pi, aiy.vision looks for a bonnet at VISION_BONNET_HOST and
VISION_BONNET_PORT, where an emulator may answer. docs/kit-program.md describes everything.
"""

# Python 3.5 cannot declare an attribute's type, so what begins as None looks like nothing else to a checker.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalIterable=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

import argparse
import collections
import hashlib
import hmac
import http.server
import io
import json
import logging
import math
import os
import queue
import random
import shlex
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from binascii import hexlify

VERSION = 1  # of model.json
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
LARGEST_JPEG = 6 << 20  # bytes; a larger one does not pass the driver's buffer well
LARGEST_SIDE_PX = 1640  # of pixels that are sent raw
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between tries after a fault
GOOD_S = 10.0  # after so long without a fault the next wait is the first again
LEAST_FREE_BYTES = 50 << 20  # on the snapshots' disk


class KitError(Exception):
    """Something that trying again does not mend. The text says what is wrong and what to do."""


class Fault(Exception):
    """The bonnet, its connection or the camera failed; trying again may help."""


class Stop(BaseException):
    """A signal asks the program to end."""

    def __init__(self, number):
        BaseException.__init__(self, number)
        self.number = number


# The model ------------------------------------------------------------------------------------------------


class Model:
    """What model.json says of a compiled model, and the model's bytes.

    anchors: a list of (centre y, centre x, height, width), normalised.
    labels: class id -> name to show.
    """

    def __init__(self, card, graph, where):
        self.where, self.graph = where, graph
        try:
            self.name = str(card["name"])
            self.labels = {}
            for one in card["labels"]:
                self.labels[int(one["id"])] = str(one.get("display_name") or one["name"])
            given = card["input"]
            self.height, self.width = int(given["height"]), int(given["width"])
            self.mean, self.stddev = float(given["mean"]), float(given["stddev"])
            self.letterbox = given["resize"] == "letterbox"
            self.codes_name = str(card["outputs"]["box_codes"])
            self.logits_name = str(card["outputs"]["class_logits"])
            self.anchors = []
            for ymin, xmin, ymax, xmax in card["anchors"]["boxes_yxyx"]:
                height, width = ymax - ymin, xmax - xmin
                self.anchors.append((ymin + height / 2, xmin + width / 2, height, width))
            coder = card["box_coder"]
            self.scales = tuple(float(coder[key]) for key in ("y_scale", "x_scale", "height_scale", "width_scale"))
            post = card["post_processing"]
            self.score_threshold = float(post["score_threshold"])
            self.iou_threshold = float(post["iou_threshold"])
            self.most_of_a_class = int(post["max_detections_per_class"])
            self.most = int(post["max_total_detections"])
            self.converter = str(post["score_converter"])
            self.threshold = float(card["recommended_threshold"])
            self.classes = int(card["network"]["num_classes"])
        except KeyError as error:
            raise KitError("%s: %s is missing. Export and compile the model again." % (where, error))
        except (TypeError, ValueError, AttributeError) as error:
            raise KitError(
                "%s: a value is not as it should be (%s). Export and compile the model again." % (where, error)
            )
        if self.converter not in ("SIGMOID", "SOFTMAX", "IDENTITY"):
            raise KitError(
                "%s: the score converter '%s' is not known. Copy this program from the Mirilla that "
                "made the model." % (where, self.converter)
            )
        if not self.anchors or self.classes < 1 or 0 in self.scales or self.stddev == 0:
            raise KitError("%s: a model without anchors, classes, scales or stddev. Export it again." % where)
        # A name of its own for every content: the client never sends a model whose name the bonnet knows.
        self.bonnet_name = "mirilla-" + hashlib.sha256(graph).hexdigest()[:16]

    def label(self, number):
        return self.labels.get(number, "class %d" % number)


def load_model(folder):
    """The model of a folder: a .binaryproto and its model.json (or NAME.model.json).

    Raises KitError: none or several are there, they do not belong together, or one is damaged.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise KitError("%s: %s. Give the folder with the model as --dir." % (folder, error.strerror))
    graphs = [one for one in names if one.endswith(".binaryproto")]
    if not graphs:
        raise KitError(
            "%s: no compiled model (*.binaryproto) is in this folder. Copy one there together with its "
            "model.json, or give another --dir." % folder
        )
    if len(graphs) > 1:
        raise KitError("%s: several compiled models: %s. Leave one." % (folder, ", ".join(graphs)))
    path = os.path.join(folder, graphs[0])
    stem = graphs[0][: -len(".binaryproto")]
    found = [one for one in (stem + ".model.json", "model.json") if one in names]
    if not found:
        raise KitError(
            "%s: model.json is missing beside %s. Copy it from where the model was compiled." % (folder, graphs[0])
        )
    where = os.path.join(folder, found[0])
    try:
        with open(where, "rb") as file:
            card = json.loads(file.read().decode("utf-8"))
        with open(path, "rb") as file:
            graph = file.read()
    except OSError as error:
        raise KitError("%s: %s." % (error.filename, error.strerror))
    except (ValueError, RuntimeError) as error:
        raise KitError("%s: not JSON (%s). Copy it again." % (where, error))
    if not isinstance(card, dict) or card.get("format") != "mirilla-model":
        raise KitError("%s: not a model.json of Mirilla. Copy the one that 'mirilla compile' wrote." % where)
    if card.get("version") != VERSION:
        raise KitError(
            "%s: version %r; this program reads version %d. Deploy program and model together."
            % (where, card.get("version"), VERSION)
        )
    file = card.get("file")
    wanted = file.get("sha256") if isinstance(file, dict) else None
    real = hashlib.sha256(graph).hexdigest()
    if wanted != real:
        raise KitError(
            "%s: it belongs to a file with SHA-256 %s..., but that of %s is %s... (damaged, or of another "
            "model). Copy both again." % (where, str(wanted)[:16], graphs[0], real[:16])
        )
    return Model(card, graph, where)


# From outputs to detections -------------------------------------------------------------------------------

Detection = collections.namedtuple("Detection", "kind score box_yxyx")  # class id, score, normalised box


def float32(value):
    """The nearest 32-bit float; so scores that are equal in the network's precision are equal here."""
    return struct.unpack("f", struct.pack("f", value))[0]


def sigmoid(logit):
    if logit < -700:
        return 0.0
    return 1 / (1 + math.exp(-logit))


def least_logit(model, threshold):
    """A logit below which no score reaches the threshold, or None where single logits do not tell.

    It lies a little low: what it lets through is compared again as a score.
    """
    if model.converter == "IDENTITY":
        return threshold - 1e-4
    if model.converter == "SOFTMAX":
        return None
    if threshold <= 1e-12:
        return -30.0
    if threshold >= 1:
        return 15.0
    return math.log(threshold / (1 - threshold)) - 1e-2


def good(model, score, threshold):
    return score >= threshold and score > model.score_threshold


def candidates_dense(model, logits, threshold):
    """Candidates of a whole logits output (flat, anchors x (1 + classes)): {class id: [(score, anchor), ...]}.

    Each list is in the order of the anchors.
    """
    columns, count = model.classes + 1, len(model.anchors)
    if len(logits) != columns * count:
        raise Fault(
            "the bonnet sent %d logits, but model.json speaks of %d anchors and %d classes"
            % (len(logits), count, model.classes)
        )
    found = {}
    if model.converter == "SOFTMAX":
        for anchor in range(count):
            row = logits[anchor * columns : (anchor + 1) * columns]
            top = max(row)
            powers = [math.exp(max(one - top, -700)) for one in row]
            total = sum(powers)
            for kind in range(1, columns):
                score = float32(powers[kind] / total)
                if good(model, score, threshold):
                    found.setdefault(kind, []).append((score, anchor))
        return found
    least = least_logit(model, threshold)
    for kind in range(1, columns):
        values = logits[kind::columns]
        if max(values) >= least:
            pairs = [(value, anchor) for anchor, value in enumerate(values) if value >= least]
            _keep(model, found, kind, pairs, threshold)
    return found


def candidates_sparse(model, places, logits, threshold):
    """Candidates of a thresholded logits output: places (anchor, column) and as many logits."""
    if len(places) != len(logits):
        raise Fault("the bonnet sent %d places for %d logits" % (len(places), len(logits)))
    pairs = {}
    for (anchor, kind), value in zip(places, logits):
        if not 0 <= anchor < len(model.anchors) or not 0 <= kind <= model.classes:
            raise Fault("the bonnet sent a place (%d, %d) that the model does not have" % (anchor, kind))
        if kind:
            pairs.setdefault(kind, []).append((value, anchor))
    found = {}
    for kind in sorted(pairs):
        _keep(model, found, kind, sorted(pairs[kind], key=lambda pair: pair[1]), threshold)
    return found


def _keep(model, found, kind, pairs, threshold):
    convert = sigmoid if model.converter == "SIGMOID" else float
    for value, anchor in pairs:
        score = float32(convert(value))
        if good(model, score, threshold):
            found.setdefault(kind, []).append((score, anchor))


def decode(model, anchor, codes):
    """Box (ymin, xmin, ymax, xmax) of four box codes (Faster R-CNN's box coder, arXiv:1506.01497)."""
    centre_y, centre_x, anchor_h, anchor_w = model.anchors[anchor]
    y_scale, x_scale, h_scale, w_scale = model.scales
    y = codes[0] / y_scale * anchor_h + centre_y
    x = codes[1] / x_scale * anchor_w + centre_x
    h = _exp(codes[2] / h_scale) * anchor_h / 2
    w = _exp(codes[3] / w_scale) * anchor_w / 2
    return (y - h, x - w, y + h, x + w)


def _exp(value):
    return math.exp(value) if value < 88.7 else value if value != value else float("inf")  # as 32-bit floats do


def overlap(a, b, most):
    """Whether the IoU of two boxes is greater than `most`."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if not (height > 0 and width > 0):
        return False
    shared = height * width
    union = max(a[2] - a[0], 0) * max(a[3] - a[1], 0) + max(b[2] - b[0], 0) * max(b[3] - b[1], 0) - shared
    return union > 0 and shared > most * union


def detections(model, candidates, codes_of, scale_yx=(1.0, 1.0)):
    """NMS class by class, the best of all classes; clipped to the picture; what has no area is dropped.

    Args:
        candidates: {class id: [(score, anchor), ...]}, each list in the order of the anchors.
        codes_of: anchor -> its four box codes.
        scale_yx: the part of the network's input that the picture takes, from the top left.

    Returns:
        A list of Detection, best first.
    """
    boxes, chosen = {}, []
    for kind in sorted(candidates):
        kept = []
        for score, anchor in sorted(candidates[kind], key=lambda pair: -pair[0]):
            if len(kept) >= model.most_of_a_class:
                break
            if anchor not in boxes:
                boxes[anchor] = decode(model, anchor, codes_of(anchor))
            box = boxes[anchor]
            if not any(overlap(box, other, model.iou_threshold) for _, other in kept):
                kept.append((score, box))
        chosen += [(score, kind, box) for score, box in kept]
    chosen.sort(key=lambda one: -one[0])
    result = []
    for score, kind, box in chosen:
        limits = scale_yx + scale_yx
        edges = [0.0 if edge < 0 else most if edge > most else edge for edge, most in zip(box, limits)]
        if edges[2] > edges[0] and edges[3] > edges[1]:
            result.append(Detection(kind, score, tuple(edge / most for edge, most in zip(edges, limits))))
            if len(result) == model.most:
                break
    return result


# The bonnet -----------------------------------------------------------------------------------------------


class LastWarning(logging.Handler):
    """Keeps what Google's client logs: its load_model turns the firmware's refusal into a warning."""

    def __init__(self):
        logging.Handler.__init__(self, logging.WARNING)
        self.text = ""

    def emit(self, record):
        self.text = record.getMessage()


class Bonnet:
    """A connection to the bonnet with the model loaded.

    Raises KitError where trying again does not help, else Fault.
    """

    def __init__(self, model, threshold, log, sparse=True):
        try:
            from aiy.vision import inference
        except ImportError as error:
            raise KitError(
                "Google's aiy.vision cannot be imported (%s). Run this on the Vision Kit's own image with its "
                "python3, or install aiy-projects-python." % error
            )
        self._api, self._model, self._threshold, self._log = inference, model, threshold, log
        self._reset_tried = False
        self._least = least_logit(model, max(threshold, model.score_threshold))
        self.sparse = sparse and self._least is not None
        self._proven = False  # whether a sparse answer came
        self._engine = None
        self._camera = False

    def open(self):
        """Connect, end what an earlier program left, and load the model."""
        self.close()
        try:
            self._engine = self._api.InferenceEngine()
        except Exception as error:
            raise Fault("no connection to the bonnet: %s" % _explain(error))
        state = self._ask(self._engine.get_inference_state)
        if state.processing_models:
            self._log("ending a camera inference that an earlier program left running")
            try:
                self._engine.stop_camera_inference()
            except Exception as error:
                self._reset("it does not end: %s" % _explain(error))
                state = self._ask(self._engine.get_inference_state)
        name = self._model.bonnet_name
        for other in state.loaded_models:
            if other.startswith("mirilla-") and other != name:
                self._ask(self._engine.unload_model, other)
        if name not in state.loaded_models:
            self._load()

    def _load(self):
        model = self._model
        refusal = self._try_to_load()
        if refusal is not None and not self._reset_tried:
            # An earlier program may have left the bonnet in a bad state or full.
            self._reset("it refused the model: %s" % refusal)
            refusal = self._try_to_load()
        if refusal is not None:
            raise KitError(
                "The bonnet did not take the model %s: %s Run 'mirilla doctor' on the .binaryproto on the "
                "computer it was compiled on." % (model.name, _sentence(refusal))
            )

    def _try_to_load(self):
        """None, or what the firmware said; the client's load_model raises nothing."""
        api, model, keeper = self._api, self._model, LastWarning()
        made = api.ModelDescriptor(
            model.bonnet_name, (1, model.height, model.width, 3), (model.mean, model.stddev), model.graph
        )
        logger = logging.getLogger(api.__name__)
        logger.addHandler(keeper)
        spreads, logger.propagate = logger.propagate, False
        try:
            self._ask(self._engine.load_model, made)
        except Fault as fault:
            if isinstance(fault.__cause__, api.FirmwareVersionException):
                raise KitError(_sentence(str(fault.__cause__)))
            raise
        finally:
            logger.propagate = spreads
            logger.removeHandler(keeper)
        if model.bonnet_name in self._ask(self._engine.get_inference_state).loaded_models:
            return None
        return keeper.text or "the firmware gives no reason"

    def _reset(self, why):
        self._reset_tried = True
        self._log("resetting the bonnet (%s)" % why)
        self._ask(self._engine.reset)
        self.close()
        time.sleep(0.5)
        try:
            self._engine = self._api.InferenceEngine()
        except Exception as error:
            raise Fault("no connection to the bonnet after its reset: %s" % _explain(error))

    def _ask(self, call, *arguments):
        try:
            return call(*arguments)
        except Exception as error:
            raise Fault(_explain(error)) from error

    def _configs(self):
        if not self.sparse:
            return None
        api, model = self._api, self._model
        count = len(model.anchors)
        columns = model.classes + 1
        return {
            model.logits_name: api.ThresholdingConfig(
                logical_shape=[count, columns], threshold=self._least, top_k=count * model.classes, to_ignore=[(1, 0)]
            ),
            model.codes_name: api.FromSparseTensorConfig(
                logical_shape=[count], tensor_name=model.logits_name, squeeze_dims=[1]
            ),
        }

    def _run(self, call):
        """Whatever call(configs) answers; with whole outputs where the firmware takes no sparse ones."""
        while True:
            try:
                return call(self._configs())
            except self._api.InferenceException as error:
                if not self.sparse or self._proven:
                    raise Fault(_explain(error)) from error
                self._dense(str(error))
            except Exception as error:
                raise Fault(_explain(error)) from error

    def _dense(self, why):
        self.sparse = False
        self._log("no sparse outputs, whole ones from here on (%s)" % why)

    def start_camera(self):
        name = self._model.bonnet_name
        self._run(lambda configs: self._engine.start_camera_inference(name, None, configs))
        self._camera = True

    def camera_frame(self):
        """The next result."""
        try:
            return self._checked(self._engine.camera_inference())
        except self._api.InferenceException as error:
            if self.sparse and not self._proven:
                self._dense(str(error))
            raise Fault(_explain(error)) from error
        except Fault:
            raise
        except Exception as error:
            raise Fault(_explain(error)) from error

    def image(self, picture):
        """The result for JPEG bytes or a Pillow image."""
        name = self._model.bonnet_name
        return self._checked(self._run(lambda configs: self._engine.image_inference(name, picture, None, configs)))

    def _checked(self, result):
        for name in (self._model.codes_name, self._model.logits_name):
            if name not in result.tensors:
                raise Fault(
                    "the bonnet's answer has the outputs %s and no '%s'"
                    % (", ".join(sorted(result.tensors)) or "(none)", name)
                )
        return result

    def detections(self, result, scale_yx=(1.0, 1.0)):
        """Detections of a result, normalised to the whole picture."""
        model = self._model
        codes, logits = result.tensors[model.codes_name], result.tensors[model.logits_name]
        values, flat = list(logits.data), list(codes.data)
        if logits.indices or (self.sparse and not values):
            self._proven = True
            places = [tuple(one.values) for one in logits.indices]
            rows = [tuple(one.values) for one in codes.indices]
            if any(len(one) != 2 for one in places) or any(len(one) != 1 for one in rows):
                raise Fault("the bonnet's sparse places have the wrong number of dimensions")
            if len(flat) != 4 * len(rows):
                raise Fault("the bonnet sent %d box codes for %d anchors" % (len(flat), len(rows)))
            where = {row[0]: 4 * i for i, row in enumerate(rows)}
            found = candidates_sparse(model, places, values, self._threshold)
            if any(anchor not in where for pairs in found.values() for _, anchor in pairs):
                raise Fault("the bonnet sent logits of an anchor without its box codes")
        else:
            if len(flat) != 4 * len(model.anchors):
                raise Fault(
                    "the bonnet sent %d box codes, but model.json speaks of %d anchors"
                    % (len(flat), len(model.anchors))
                )
            where = None
            found = candidates_dense(model, values, self._threshold)

        def codes_of(anchor):
            start = 4 * anchor if where is None else where[anchor]
            return flat[start : start + 4]

        chosen = detections(model, found, codes_of, scale_yx)
        window = result.window
        if (
            not result.width
            or not result.height
            or not window.width
            or not window.height
            or ((window.width, window.height) == (result.width, result.height))
        ):
            return chosen
        y, x = window.y / result.height, window.x / result.width
        h, w = window.height / result.height, window.width / result.width
        return [
            Detection(
                one.kind,
                one.score,
                (one.box_yxyx[0] * h + y, one.box_yxyx[1] * w + x, one.box_yxyx[2] * h + y, one.box_yxyx[3] * w + x),
            )
            for one in chosen
        ]

    def temperature(self):
        """Of the bonnet, in degrees Celsius, or None."""
        try:
            value = self._engine.get_system_info().temperature_celsius
        except Exception:
            return None
        return round(value, 1) if 0 < value < 200 else None

    def close(self):
        """End everything; never raises."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        try:
            if self._camera:
                engine.stop_camera_inference()
        except Exception:
            pass
        self._camera = False
        try:
            engine.close()
        except Exception:
            pass


def _explain(error):
    """One line about an exception of Google's client, which has little text itself."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if name == "SpicommTimeoutError":
        return "the bonnet did not answer within %g s" % getattr(error, "timeout", 0)
    if name == "SpicommOverflowError":
        return "the bonnet's answer of %s bytes does not fit" % getattr(error, "size", "?")
    if name == "SpicommError":
        return "the transfer to the bonnet failed"
    if isinstance(error, OSError) and error.filename:
        return "%s: %s" % (error.filename, error.strerror)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TypeError):  # the client parses None when the connection ended
        return "the connection ended (%s)" % text
    if name == "DecodeError":
        return "the answer is no message of the bonnet (%s)" % text
    return text or name


def _sentence(text):
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else text + "."


# Pictures -------------------------------------------------------------------------------------------------


class Camera:
    """The kit's camera, which must be open while the bonnet looks through it; also gives live JPEGs.

    Without picamera (an emulator answers) it is nothing but a name.
    """

    SENSOR_MODE, SIZE_PX, LIVE_PX = 4, (1640, 1232), (640, 480)  # the mode that the bonnet's firmware looks at

    def __init__(self, rate, log):
        self._rate, self._camera, self._live, self._since = rate, None, None, 0.0
        self.taken = 0
        try:
            import picamera

            self._module = picamera
        except (ImportError, OSError) as error:
            if os.uname()[4].startswith("arm"):
                raise KitError(
                    "picamera cannot be imported (%s). Install it with 'sudo apt-get install python3-picamera'." % error
                )
            log("no picamera here: the bonnet's own camera is all there is, and no live picture")
            self._module = None

    def open(self):
        self.close()
        if self._module is None:
            return
        try:
            self._camera = self._module.PiCamera(
                sensor_mode=self.SENSOR_MODE, resolution=self.SIZE_PX, framerate=self._rate
            )
        except Exception as error:
            raise Fault(
                "the camera does not open: %s (is its cable seated, and no other program using it?)" % _explain(error)
            )

    def jpeg(self):
        """A picture of now, or None."""
        if self._camera is None:
            return None
        buffer = io.BytesIO()
        try:
            self._camera.capture(buffer, format="jpeg", use_video_port=True, resize=self.LIVE_PX, quality=80)
        except Exception as error:
            raise Fault("the camera gives no picture: %s" % _explain(error))
        return buffer.getvalue()

    def live(self, sink):
        """Send frames as JPEG to sink(bytes) from now on; None ends it. The GPU does the work."""
        if self._camera is None or (sink is None) == (self._live is None):
            return
        try:
            if sink is None:
                self._camera.stop_recording(splitter_port=2)
                self._live = None
            else:
                self._live = _Frames(sink)
                self._camera.start_recording(
                    self._live, format="mjpeg", resize=self.LIVE_PX, splitter_port=2, bitrate=6000000
                )
        except Exception as error:
            raise Fault("the camera's live picture failed: %s" % _explain(error))

    def close(self):
        camera, self._camera, self._live = self._camera, None, None
        if camera is not None:
            try:
                camera.close()
            except Exception:
                pass


class _Frames:
    """What picamera writes its MJPEG to: each frame begins with a JPEG's first bytes."""

    def __init__(self, sink):
        self._sink, self._parts = sink, []

    def write(self, part):
        if part[:2] == b"\xff\xd8" and self._parts:
            self._sink(b"".join(self._parts))
            self._parts = []
        self._parts.append(bytes(part))
        return len(part)

    def flush(self):
        pass


def picture_paths(source):
    """The pictures of --source FILE or FOLDER, by name."""
    if os.path.isdir(source):
        paths = [os.path.join(source, one) for one in sorted(os.listdir(source)) if one.lower().endswith(PICTURES)]
        if not paths:
            raise KitError("%s: no pictures are in this folder. Give one with JPEG or PNG files." % source)
        return paths
    if not os.path.isfile(source):
        raise KitError("%s: no such file or folder. Give --source camera, a picture or a folder." % source)
    return [source]


def read_picture(path, letterbox, height, width):
    """What is sent to the bonnet (JPEG bytes or a Pillow image), the part of the input that the picture takes
    (y, x), and the picture's size in pixels (height, width).

    Raises ValueError: it is no picture, or Pillow is needed and missing.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        from PIL import Image
    except ImportError:
        if letterbox or not content.startswith(b"\xff\xd8"):
            raise ValueError("only JPEG can be read without Pillow (sudo apt-get install python3-pil)")
        return content, (1.0, 1.0), None
    try:
        image = Image.open(io.BytesIO(content))
        kind, turn = image.format, _orientation(image)
        size = image.size
        if kind == "JPEG" and turn == 1 and not letterbox and len(content) <= LARGEST_JPEG:
            return content, (1.0, 1.0), (size[1], size[0])
        turns = {2: (0,), 3: (3,), 4: (1,), 5: (0, 2), 6: (4,), 7: (0, 4), 8: (2,)}
        image = image.convert("RGB")
        for one in turns.get(turn, ()):
            image = image.transpose(one)
        size = image.size
        if max(size) > LARGEST_SIDE_PX:
            image.thumbnail((LARGEST_SIDE_PX, LARGEST_SIDE_PX), Image.BILINEAR)
    except Exception as error:  # Pillow raises much on broken files
        raise ValueError("cannot be read as a picture (%s)" % error)
    scale = (1.0, 1.0)
    if letterbox:
        # The bonnet squashes; a canvas of the input's shape with the picture at its top left letterboxes.
        w, h = image.size
        wide = max(w, int(math.ceil(h * width / height)))
        high = max(h, int(math.ceil(w * height / width)))
        canvas = Image.new("RGB", (wide, high))
        canvas.paste(image, (0, 0))
        image, scale = canvas, (h / high, w / wide)
    return image, scale, (size[1], size[0])


def _orientation(image):
    try:
        return int((image._getexif() or {}).get(0x0112, 1))
    except Exception:
        return 1


# Alerts ---------------------------------------------------------------------------------------------------


class Alert:
    """Hysteresis over frames, and a rate limit on what is done about it.

    On after `min_frames` frames in a row with an object, off after `clear_frames` in a row without. Between two
    actions lie at least `every_s` seconds: an alert that comes too soon acts when they are over, if it is still
    on then.
    """

    def __init__(self, min_frames, clear_frames, every_s):
        self.min_frames, self.clear_frames, self.every_s = min_frames, clear_frames, every_s
        self.on = False
        self._with = self._without = 0
        self._due, self._last_s = False, None

    def update(self, seen, now_s):
        """(what changed: 'raised', 'cleared' or None; whether to act now)."""
        if seen:
            self._with, self._without = self._with + 1, 0
        else:
            self._with, self._without = 0, self._without + 1
        change = None
        if not self.on and self._with >= self.min_frames:
            self.on, self._due, change = True, True, "raised"
        elif self.on and self._without >= self.clear_frames:
            self.on, self._due, change = False, False, "cleared"
        act = self._due and (self._last_s is None or now_s - self._last_s >= self.every_s)
        if act:
            self._due, self._last_s = False, now_s
        return change, act


class Actions:
    """Runs the alert command and posts the webhook beside the main loop, one after the other."""

    MOST_WAITING, COMMAND_S, POST_S, POST_TRIES = 4, 30.0, 10.0, 3

    def __init__(self, command, webhook, log):
        self._command = shlex.split(command) if command else None
        self._webhook, self._log = webhook, log
        self._queue = queue.Queue(self.MOST_WAITING)
        self._thread = None

    def put(self, event):
        if self._command is None and not self._webhook:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._log("alert: the actions before are not done yet; this one is left out")

    def finish(self, within_s):
        """Wait a little for what is under way."""
        end_s = time.monotonic() + within_s
        while self._queue.unfinished_tasks and time.monotonic() < end_s:
            time.sleep(0.05)

    def _work(self):
        while True:
            event = self._queue.get()
            content = json.dumps(event, sort_keys=True).encode("ascii")
            try:
                if self._command is not None:
                    self._run(content)
                if self._webhook:
                    self._post(content)
            except Exception as error:
                self._log("alert: %s" % _explain(error))
            finally:
                self._queue.task_done()

    def _run(self, content):
        environment = dict(os.environ, MIRILLA_ALERT=content.decode("ascii"))
        try:
            done = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        except OSError as error:
            self._log("alert: the command %s does not start: %s" % (self._command[0], error.strerror))
            return
        try:
            done.communicate(content + b"\n", timeout=self.COMMAND_S)
        except subprocess.TimeoutExpired:
            done.kill()
            done.communicate()
            self._log("alert: the command %s was ended after %g s" % (self._command[0], self.COMMAND_S))
            return
        if done.returncode:
            self._log("alert: the command %s ended with code %d" % (self._command[0], done.returncode))

    def _post(self, content):
        host = urllib.parse.urlsplit(self._webhook).hostname  # the rest of the address may be a secret
        for attempt in range(1, self.POST_TRIES + 1):
            request = urllib.request.Request(self._webhook, content, {"Content-Type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=self.POST_S).close()
                return
            except urllib.error.HTTPError as error:
                problem = "it answers %d" % error.code
                error.close()
            except Exception as error:
                problem = _explain(
                    getattr(error, "reason", None) if isinstance(getattr(error, "reason", None), Exception) else error
                )
            if attempt < self.POST_TRIES:
                time.sleep(2 ** (attempt - 1))
        self._log("alert: the webhook at %s failed %d times: %s" % (host, self.POST_TRIES, problem))


class Signals:
    """The button's light, the buzzer and a pin; whatever is missing is said once and left out."""

    def __init__(self, led, buzzer, pin, log):
        self._leds = self._buzzer = self._pin = None
        self._colour = None
        self._log = log
        if led:
            self._leds = self._try("the LED", self._open_leds)
        if buzzer:
            self._buzzer = self._try("the buzzer", self._open_buzzer)
        if pin is not None:
            self._pin = self._try("pin %d" % pin, lambda: self._open_pin(pin))

    def _try(self, what, make):
        try:
            return make()
        except Exception as error:
            self._log("%s cannot be used: %s" % (what, _explain(error)))
            return None

    def _open_leds(self):
        from aiy import leds

        self._leds_api = leds.Leds
        return leds.Leds()

    def _open_buzzer(self):
        from aiy.toneplayer import TonePlayer

        return TonePlayer(22, bpm=60)  # the kit's buzzer is at this GPIO

    def _open_pin(self, pin):
        from gpiozero import DigitalOutputDevice

        return DigitalOutputDevice(pin)

    def show(self, state):
        """'running': green, 'alert': red, 'fault': yellow, 'off'."""
        if state == self._colour:
            return
        self._colour = state
        colours = {"running": (0, 255, 0), "alert": (255, 0, 0), "fault": (255, 160, 0)}
        try:
            if self._leds is not None:
                api = self._leds_api
                self._leds.update(api.rgb_on(colours[state]) if state in colours else api.rgb_off())
            if self._pin is not None:
                self._pin.value = state == "alert"
        except Exception as error:
            self._log("light or pin failed: %s" % _explain(error))

    def sound(self):
        if self._buzzer is None:
            return
        buzzer = self._buzzer

        def play():
            try:
                buzzer.play("C5e", "r", "C5e")
            except Exception as error:
                self._log("the buzzer failed: %s" % _explain(error))

        threading.Thread(target=play, daemon=True).start()

    def close(self):
        self.show("off")


# Snapshots ------------------------------------------------------------------------------------------------


class Snapshots:
    """JPEG files in a folder, the oldest deleted above a number; only files of its own are touched."""

    PREFIX = "kit-"

    def __init__(self, folder, most, every_s, log):
        self.folder, self.most, self.every_s, self._log = folder, most, every_s, log
        self._last_s, self._said = None, False
        try:
            if not os.path.isdir(folder):
                os.makedirs(folder)
            names = self._names()
            if not os.access(folder, os.W_OK):
                raise OSError(13, "it cannot be written to", folder)
        except OSError as error:
            raise KitError("--snapshots %s: %s. Give a folder that can be written to." % (folder, error.strerror))
        self._number = 1 + max([int(one[len(self.PREFIX) : len(self.PREFIX) + 8]) for one in names] or [0])

    def _names(self):
        start, end = len(self.PREFIX), len(self.PREFIX) + 8
        return sorted(
            one
            for one in os.listdir(self.folder)
            if one.startswith(self.PREFIX) and one.endswith(".jpg") and one[start:end].isdigit()
        )

    def due(self, now_s):
        return self._last_s is None or now_s - self._last_s >= self.every_s

    def save(self, jpeg, now_s):
        """The new file's path, or None when the disk has no room."""
        self._last_s = now_s
        try:
            disk = os.statvfs(self.folder)
            if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
                self._say("less than %d MB are free: no snapshots" % (LEAST_FREE_BYTES >> 20))
                return None
            for name in self._names()[: max(0, len(self._names()) - self.most + 1)]:
                os.remove(os.path.join(self.folder, name))
            stamp = time.strftime("%Y%m%d-%H%M%S")
            path = os.path.join(self.folder, "%s%08d-%s.jpg" % (self.PREFIX, self._number, stamp))
            with open(path + ".part", "wb") as file:
                file.write(jpeg)
            os.rename(path + ".part", path)
        except OSError as error:
            self._say(_explain(error))
            return None
        self._number, self._said = self._number + 1, False
        return path

    def _say(self, text):
        if not self._said:
            self._log("snapshots: %s" % text)
        self._said = True


def as_jpeg(picture):
    """JPEG bytes of what was sent to the bonnet."""
    if isinstance(picture, (bytes, bytearray)):
        return bytes(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


# The web page ---------------------------------------------------------------------------------------------

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mirilla</title><style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #626b76; --back: #f3f4f6; --card: #fff; --line: #d9dde3;
  --mark: #0a7f5a; --alarm: #c62828 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa3ad; --back: #14171b; --card: #1e2228;
  --line: #343a42; --mark: #3ecf9b; --alarm: #ff6b60 } }
* { box-sizing: border-box } body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--back) }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; display: grid; gap: 1rem }
header { display: flex; align-items: baseline; gap: .8rem; flex-wrap: wrap }
h1 { font-size: 1.15rem; margin: 0 } #state { padding: .1rem .7rem; border-radius: 1rem; font-size: .85rem;
  color: #fff; background: var(--soft) }
#state.running { background: #0a7f5a } #state.alert { background: #c62828 } #state.fault { background: #a15c00 }
.view { position: relative; background: #0b0d10; border-radius: .5rem; overflow: hidden; line-height: 0;
  aspect-ratio: 4 / 3; max-height: 72vh; margin: 0 auto; width: 100% }
.view img, .view canvas { position: absolute; inset: 0; width: 100%; height: 100% }
.view img.gone { visibility: hidden }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 0 }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem }
dt { font-size: .8rem; color: var(--soft) } dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem } th, td { text-align: left; padding: .35rem .8rem } th { font-size: .8rem;
  color: var(--soft); font-weight: 400 } td { border-top: 1px solid var(--line) }
td:nth-child(n+2), th:nth-child(n+2) { text-align: right; font-variant-numeric: tabular-nums }
#note { color: var(--soft); margin: 0; font-size: .9rem }
</style></head><body><main>
<header><h1 id="model">Mirilla</h1><span id="state">waiting</span></header>
<div class="view" id="view"><img id="live" class="gone" alt="live picture"><canvas id="boxes"></canvas></div>
<p id="note" hidden></p>
<dl><div><dt>Rate</dt><dd id="rate">-</dd></div><div><dt>Inference</dt><dd id="ms">-</dd></div>
<div><dt>Bonnet</dt><dd id="bonnet">-</dd></div><div><dt>Processor</dt><dd id="cpu">-</dd></div>
<div><dt>Frames</dt><dd id="frames">-</dd></div><div><dt>Faults</dt><dd id="faults">-</dd></div></dl>
<table><thead><tr><th>Object</th><th>Score</th><th>Left, top (px)</th><th>Size (px)</th></tr></thead>
<tbody id="list"></tbody></table>
</main><script>
"use strict";
const token = new URLSearchParams(location.search).get("token"), query = "?token=" + encodeURIComponent(token);
const $ = id => document.getElementById(id), live = $("live"), canvas = $("boxes");
const colours = ["#3ecf9b", "#ffb13d", "#63a8ff", "#ff7bac", "#c79bff", "#f4e04d", "#59d8e6", "#ff7f57"];
function watch() { live.src = "/live.mjpeg" + query + "&t=" + Date.now(); }
live.onload = () => live.classList.remove("gone");
live.onerror = () => { live.classList.add("gone"); setTimeout(watch, 3000); };
function draw(state) {
  const view = $("view"), w = view.clientWidth, h = view.clientHeight, dense = window.devicePixelRatio || 1;
  canvas.width = w * dense; canvas.height = h * dense;
  const pen = canvas.getContext("2d"); pen.scale(dense, dense);
  pen.font = "600 14px system-ui, sans-serif"; pen.lineWidth = 3;
  const taken = [];
  const free = (x, y, wide) => taken.every(([a, b, c]) => x + wide < a || a + c < x || Math.abs(y - b) > 20);
  const signs = state.detections.map(one => {  // the best first, so that the weaker labels give way
    const [y0, x0, y1, x1] = one.box_yxyx, text = one.label + " " + Math.round(one.score * 100) + " %";
    const wide = pen.measureText(text).width + 10, x = Math.max(0, Math.min(x0 * w - 1.5, w - wide));
    const tops = [y0 * h, y1 * h, y0 * h + 23, y1 * h + 20].map(y => Math.max(20, Math.min(y, h)));
    const y = tops.find(y => free(x, y, wide)) || tops[0];
    taken.push([x, y, wide]);
    return {box: [x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h], text, wide, x, y, colour: colours[(one.class - 1) % colours.length]};
  }).reverse();
  for (const one of signs) { pen.strokeStyle = one.colour; pen.strokeRect(...one.box); }
  for (const one of signs) {
    pen.fillStyle = one.colour; pen.fillRect(one.x, one.y - 20, one.wide, 20);
    pen.fillStyle = "#0b0d10"; pen.fillText(one.text, one.x + 5, one.y - 5);
  }
}
function show(state) {
  $("model").textContent = state.model; document.title = state.model + " on the kit";
  $("state").textContent = state.state; $("state").className = state.state;
  $("rate").textContent = state.rate.toFixed(1) + " /s"; $("ms").textContent = state.ms + " ms";
  const degrees = value => value === null ? "-" : value.toFixed(0) + " \\u00b0C";
  $("bonnet").textContent = degrees(state.bonnet_celsius); $("cpu").textContent = degrees(state.cpu_celsius);
  $("frames").textContent = state.frames; $("faults").textContent = state.faults;
  const note = state.fault ? "Last fault: " + state.fault : state.live ? "" : "No live picture from this source; boxes only.";
  $("note").textContent = note; $("note").hidden = !note;
  if (state.width && state.height) {
    $("view").style.aspectRatio = state.width + " / " + state.height;
    $("view").style.width = "min(100%, " + 72 * state.width / state.height + "vh)";
  }
  const rows = state.detections.map(one => {
    const row = document.createElement("tr"), [y0, x0, y1, x1] = one.box_yxyx, W = state.width, H = state.height;
    for (const text of [one.label, Math.round(one.score * 100) + " %",
        Math.round(x0 * W) + ", " + Math.round(y0 * H),
        Math.round((x1 - x0) * W) + " \\u00d7 " + Math.round((y1 - y0) * H)]) {
      const cell = document.createElement("td"); cell.textContent = text; row.append(cell);
    }
    return row;
  });
  if (!rows.length) { const row = document.createElement("tr"), cell = document.createElement("td");
    cell.colSpan = 4; cell.style.textAlign = "left"; cell.textContent = "Nothing in view."; row.append(cell); rows.push(row); }
  $("list").replaceChildren(...rows); draw(state);
}
async function poll() {
  try { const answer = await fetch("/state.json" + query, {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status); show(await answer.json()); setTimeout(poll, 200); }
  catch (error) { $("state").textContent = "no connection"; $("state").className = "fault"; setTimeout(poll, 2000); }
}
window.onload = () => setTimeout(watch, 0);  // not before: a picture without end would keep the page loading
poll();
</script></body></html>
"""


class Board:
    """What the main loop tells and the page shows."""

    def __init__(self, model_name):
        self._change = threading.Condition()
        self._state = {
            "model": model_name,
            "state": "waiting",
            "rate": 0.0,
            "ms": 0,
            "frames": 0,
            "faults": 0,
            "fault": None,
            "width": 0,
            "height": 0,
            "detections": [],
            "bonnet_celsius": None,
            "cpu_celsius": None,
            "live": False,
        }
        self._jpeg, self._number = None, 0
        self.viewers = 0

    def tell(self, **news):
        with self._change:
            self._state.update(news)

    def state(self):
        with self._change:
            return dict(self._state)

    def picture(self, jpeg):
        with self._change:
            self._jpeg, self._number = jpeg, self._number + 1
            self._state["live"] = True
            self._change.notify_all()

    def next_picture(self, after, within_s):
        """(number, JPEG bytes) of a picture newer than number `after`; (after, None) when none comes in time."""
        end_s = time.monotonic() + within_s
        with self._change:
            while self._number <= after or self._jpeg is None:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return after, None
                self._change.wait(left_s)
            return self._number, self._jpeg

    def watch(self, by):
        with self._change:
            self.viewers += by


class Page(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The page's server: `/`, `/state.json` and `/live.mjpeg`, each with the token and without change."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    MOST_CONNECTIONS, MOST_VIEWERS, LONGEST_SILENCE_S, LEAST_GAP_S = 24, 4, 15.0, 0.08

    def __init__(self, host, port, token, board):
        self.token, self.board = token, board
        self._places = threading.BoundedSemaphore(self.MOST_CONNECTIONS)
        http.server.HTTPServer.__init__(self, (host, port), Handler)

    def process_request(self, request, client_address):
        if not self._places.acquire(False):
            self.shutdown_request(request)
            return
        try:
            socketserver.ThreadingMixIn.process_request(self, request, client_address)
        except Exception:
            self._places.release()
            raise

    def process_request_thread(self, request, client_address):
        try:
            socketserver.ThreadingMixIn.process_request_thread(self, request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request, client_address):
        pass  # browsers go away in the middle all the time

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the name service, which may take long
        self.server_name, self.server_port = self.server_address[:2]


class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "mirilla", ""
    timeout = 10.0  # for a request, and for a browser to take a piece of its answer

    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        given = urllib.parse.parse_qs(address.query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode("utf-8")):
            self._answer(403, "text/plain; charset=utf-8", b"The address needs its token; the program prints it.\n")
        elif address.path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.encode("utf-8"))
        elif address.path == "/state.json":
            self._answer(200, "application/json", json.dumps(self.server.board.state()).encode("ascii"))
        elif address.path == "/live.mjpeg":
            self._live()
        else:
            self._answer(404, "text/plain; charset=utf-8", b"There is no such page.\n")

    def _headers(self, code, kind, length=None):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; img-src 'self'; connect-src 'self'; "
            "script-src 'unsafe-inline'; style-src 'unsafe-inline'",
        )
        self.end_headers()

    def _answer(self, code, kind, content):
        self._headers(code, kind, len(content))
        self.wfile.write(content)

    def _live(self):
        board, page = self.server.board, self.server
        if board.viewers >= page.MOST_VIEWERS:
            self._answer(503, "text/plain; charset=utf-8", b"Too many viewers.\n")
            return
        board.watch(1)
        try:
            number, jpeg = board.next_picture(0, page.LONGEST_SILENCE_S)
            if jpeg is None:
                self._answer(503, "text/plain; charset=utf-8", b"No picture.\n")
                return
            self._headers(200, "multipart/x-mixed-replace; boundary=frame")
            while jpeg is not None:
                self.wfile.write(
                    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: "
                    + str(len(jpeg)).encode("ascii")
                    + b"\r\n\r\n"
                    + jpeg
                    + b"\r\n"
                )
                # the part ends, for browsers, where the next begins
                time.sleep(page.LEAST_GAP_S)
                number, jpeg = board.next_picture(number, page.LONGEST_SILENCE_S)
        finally:
            board.watch(-1)

    def log_message(self, format, *arguments):
        pass  # the address holds the token


def web_token(path, log):
    """The page's token: of MIRILLA_WEB_TOKEN, of a file (made when missing), or a fresh one."""
    token = os.environ.get("MIRILLA_WEB_TOKEN", "")
    if not token and path:
        try:
            with open(path) as file:
                token = file.read().strip()
        except FileNotFoundError:
            token = hexlify(os.urandom(16)).decode("ascii")
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w") as file:
                    file.write(token + "\n")
            except OSError as error:
                raise KitError("--web-token-file %s: %s." % (path, error.strerror))
        except (OSError, ValueError) as error:
            raise KitError("--web-token-file %s: %s." % (path, _explain(error)))
    if not token:
        return hexlify(os.urandom(16)).decode("ascii")
    if len(token) < 16:
        raise KitError("The page's token has %d characters; the rule is at least 16." % len(token))
    return token


def own_address():
    """This machine's address in its network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


# The service manager and the watchdog ---------------------------------------------------------------------


class Watchdog:
    """Tells systemd that the main loop lives; and ends the program when it does not.

    A call into the bonnet's driver may never return, and then no exception helps: after `stall_s` seconds
    without a sign of life the program ends with code 70 and whoever started it starts it again.
    """

    def __init__(self, stall_s, log):
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        usec = os.environ.get("WATCHDOG_USEC", "")
        self._every_s = int(usec) / 3e6 if usec.isdigit() and int(usec) else 10.0
        self._last_sent_s, self._alive_s = 0.0, time.monotonic()
        if stall_s:
            threading.Thread(target=self._guard, args=(stall_s, log), daemon=True).start()

    def notify(self, text):
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.sendto(text.encode("utf-8"), address)
        except OSError:
            pass

    def alive(self):
        self._alive_s = now_s = time.monotonic()
        if now_s - self._last_sent_s >= self._every_s:
            self._last_sent_s = now_s
            self.notify("WATCHDOG=1")

    def _guard(self, stall_s, log):
        while True:
            time.sleep(min(1.0, stall_s / 4))
            if time.monotonic() - self._alive_s > stall_s:
                log("nothing has moved for %g s: ending, to be started again" % stall_s)
                os._exit(70)


# The program ----------------------------------------------------------------------------------------------


class Program:
    """The main loop and everything it holds."""

    def __init__(self, options, out=None, err=None):
        self.options = options
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._writing = threading.Lock()
        self.model = load_model(options.dir)
        self.threshold = self.model.threshold if options.threshold is None else options.threshold
        known = sorted(self.model.labels.values())
        for one in options.alert_label:
            if one not in known:
                raise KitError("--alert-label %s: the model's labels are %s." % (one, ", ".join(known)))
        self.paths = None if options.source == "camera" else picture_paths(options.source)
        self.bonnet = Bonnet(self.model, self.threshold, self.log, not options.dense)
        self.camera = Camera(options.framerate, self.log) if self.paths is None else None
        self.snapshots = None
        if options.snapshots:
            self.snapshots = Snapshots(options.snapshots, options.snapshots_max, options.snapshots_every, self.log)
        self.alert = Alert(options.alert_min_frames, options.alert_clear_frames, options.alert_every)
        self.actions = Actions(options.alert_command, options.alert_webhook, self.log)
        self.signals = Signals(options.led, options.buzzer, options.gpio, self.log)
        self.board = Board(self.model.name)
        self.watchdog = Watchdog(options.stall, self.log)
        self.page = None
        self.frames = self.faults = 0
        self._tries, self._wait_s, self._opened_s = 0, FIRST_WAIT_S, 0.0
        self._recent = collections.deque(maxlen=30)
        self._warm_s = self._line_s = -60.0
        self._shown, self._ready, self._warned = None, False, False
        self._next, self._failed = 0, -1  # picture to come; the one at the last fault

    # Telling

    def log(self, text):
        self._write(self._err, "mirilla_kit: " + text)

    def _write(self, stream, text):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with self._writing:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()

    def event(self, kind, **more):
        if self.options.json:
            self._write(self._out, json.dumps(dict(more, event=kind, time=round(time.time(), 3)), sort_keys=True))

    # Running

    def run(self):
        """Until a signal, or the end of --once. Returns the exit code."""
        options = self.options
        if options.web is not None:
            self._open_page()
        try:
            while True:
                try:
                    self._open()
                    while not self._step():
                        pass
                    self.actions.finish(Actions.COMMAND_S)
                    return 0
                except Fault as fault:
                    self._recover(str(fault))
        finally:
            self.watchdog.notify("STOPPING=1")
            self.bonnet.close()
            if self.camera is not None:
                self.camera.close()
            self.signals.close()
            if self.page is not None:
                self.page.server_close()

    def _open_page(self):
        options = self.options
        token = web_token(options.web_token_file, self.log)
        try:
            self.page = Page(options.web_host, options.web, token, self.board)
        except (OSError, OverflowError) as error:
            raise KitError(
                "The page cannot be served at %s port %d: %s. Give another --web or --web-host."
                % (options.web_host, options.web, getattr(error, "strerror", None) or error)
            )
        threading.Thread(target=self.page.serve_forever, daemon=True).start()
        host, port = self.page.server_address[:2]
        if host == "0.0.0.0":
            host = own_address()
        self.log("page: http://%s:%d/?token=%s" % (host, port, token))

    def _open(self):
        self.watchdog.alive()
        if self.camera is not None:
            self.camera.open()
        self.bonnet.open()
        if self.camera is not None:
            self.bonnet.start_camera()
        self._opened_s = time.monotonic()
        self.watchdog.alive()

    def _recover(self, text):
        """Say what went wrong, close everything and wait; the wait doubles from fault to fault."""
        self.faults += 1
        if time.monotonic() - self._opened_s > GOOD_S and self._opened_s:
            self._tries, self._wait_s = 0, FIRST_WAIT_S  # it worked for a while
        if self._opened_s and self.paths is not None and self._next == self._failed:
            self._next += 1  # the same picture as at the last fault: the bonnet may not be able to take it
        self._failed = self._next if self._opened_s else -1
        self._tries, self._opened_s = self._tries + 1, 0.0
        self.bonnet.close()
        if self.camera is not None:
            self.camera.close()
        most = self.options.tries
        if most and self._tries >= most:
            raise KitError("Given up after %d tries: %s." % (self._tries, text))
        wait_s = self._wait_s * random.uniform(0.8, 1.2)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        self.log("fault %d: %s; trying again in %.1f s" % (self.faults, text, wait_s))
        self.event("fault", message=text, wait_s=round(wait_s, 2))
        self.board.tell(state="fault", fault=text, faults=self.faults, rate=0.0, detections=[])
        self.watchdog.notify("STATUS=fault: %s" % text)
        self.signals.show("fault")
        self._recent.clear()
        self._sleep(wait_s)

    def _sleep(self, seconds):
        end_s = time.monotonic() + seconds
        while True:
            self.watchdog.alive()
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, 1.0))

    def _step(self):
        """One picture. Returns whether all is done."""
        start_s = time.monotonic()
        picture, name, scale, size = None, None, (1.0, 1.0), None
        if self.paths is None:
            self.camera.live(self.board.picture if self.page is not None and self.board.viewers else None)
            result = self.bonnet.camera_frame()
        else:
            if self.options.once and self._next >= len(self.paths):
                return True
            taken = self._read_next()
            if taken is None:
                return self._next >= len(self.paths) and self.options.once
            name, picture, scale, size = taken
            result = self.bonnet.image(picture)
            self._next += 1
        found = self.bonnet.detections(result, scale)
        height, width = size or (result.height, result.width)
        if self.page is not None and self.board.viewers and picture is not None:
            self.board.picture(as_jpeg(picture))
        self._tell(result, name, found, height, width, picture)
        if self.options.once and (self.paths is None or self._next >= len(self.paths)):
            return True
        rate = self.options.max_rate
        if rate:
            self._sleep(max(0.0, start_s + 1 / rate - time.monotonic()))
        return False

    def _read_next(self):
        """(name, picture, part of the input, size) of the next picture, or None for a broken one."""
        if self._next >= len(self.paths):
            self._next = 0
        path = self.paths[self._next]
        try:
            taken = read_picture(path, self.model.letterbox, self.model.height, self.model.width)
        except (OSError, ValueError) as error:
            self.log("%s: %s; left out" % (path, _explain(error)))
            self.paths = [one for one in self.paths if one != path]
            if not self.paths:
                raise KitError("No picture of %s can be read." % self.options.source)
            return None
        return (os.path.basename(path),) + taken

    def _tell(self, result, name, found, height, width, picture):
        now_s = time.monotonic()
        self.watchdog.alive()
        self._recent.append(now_s)
        span_s = now_s - self._recent[0]
        rate = (len(self._recent) - 1) / span_s if span_s > 0 else 0.0
        self.frames += 1
        if not self._ready:
            self._ready = True
            self.watchdog.notify("READY=1\nSTATUS=running %s" % self.model.name)
        if self.faults and self._tries and self.board.state()["state"] == "fault":
            self.log("running again")
            self.event("recovered")
        plain = [
            {
                "class": one.kind,
                "label": self.model.label(one.kind),
                "score": round(one.score, 5),
                "box_yxyx": [round(edge, 5) for edge in one.box_yxyx],
            }
            for one in found
        ]
        entry = {
            "time": round(time.time(), 3),
            "frame": self.frames,
            "width": width,
            "height": height,
            "ms": result.duration_ms,
            "rate": round(rate, 2),
            "detections": plain,
        }
        if name is not None:
            entry["file"] = name
        wanted = self.options.alert_label
        seen = [one for one in plain if not wanted or one["label"] in wanted]
        self._alarm(seen, now_s, entry)
        if self.snapshots is not None and seen and self.snapshots.due(now_s):
            self._snapshot(picture, now_s, entry)
        self.signals.show("alert" if self.alert.on else "running")
        news = {
            "state": "alert" if self.alert.on else "running",
            "detections": plain,
            "width": width,
            "height": height,
            "ms": result.duration_ms,
            "rate": round(rate, 2),
            "frames": self.frames,
            "fault": None,
        }
        if now_s - self._warm_s > 10:
            self._warm_s = now_s
            news.update(bonnet_celsius=self.bonnet.temperature(), cpu_celsius=cpu_temperature())
        self.board.tell(**news)
        if self.options.json:
            self._write(self._out, json.dumps(entry, sort_keys=True))
        else:
            self._line(plain, now_s, rate, name)

    def _line(self, plain, now_s, rate, name):
        """For people and the journal: a line when what is seen changes, at most one a second; one a minute."""
        shown = collections.Counter(one["label"] for one in plain)
        changed = shown != self._shown
        due = self.options.once or (changed and now_s - self._line_s >= 1) or now_s - self._line_s >= 60
        if not due:
            return
        self._shown, self._line_s = shown, now_s
        objects = (
            ", ".join(
                "%s %.0f %% at (%.2f, %.2f)-(%.2f, %.2f)"
                % (
                    one["label"],
                    one["score"] * 100,
                    one["box_yxyx"][1],
                    one["box_yxyx"][0],
                    one["box_yxyx"][3],
                    one["box_yxyx"][2],
                )
                for one in plain[:5]
            )
            or "nothing"
        )
        if len(plain) > 5:
            objects += ", and %d more" % (len(plain) - 5)
        what = name or "frame %d, %.1f/s" % (self.frames, rate)
        self._write(self._out, "%s: %s" % (what, objects))

    def _alarm(self, seen, now_s, entry):
        change, act = self.alert.update(bool(seen), now_s)
        if change is not None:
            self.event("alert", state=change, frame=self.frames)
            if not self.options.json:
                self._write(self._out, "alert %s" % change)
        if act:
            self.actions.put(dict(entry, event="alert", state="raised", model=self.model.name, detections=seen))
            self.signals.sound()

    def _snapshot(self, picture, now_s, entry):
        jpeg = as_jpeg(picture) if picture is not None else self.camera.jpeg()
        if jpeg is None:
            if not self._warned:
                self.log("snapshots: this source gives no pictures")
            self._warned = True
            return
        path = self.snapshots.save(jpeg, now_s)
        if path is not None:
            entry["snapshot"] = os.path.basename(path)


def cpu_temperature():
    """Of the Raspberry Pi, in degrees Celsius, or None."""
    try:
        with open("/sys/class/thermal/thermal_zone0/temp") as file:
            return round(int(file.read()) / 1000, 1)
    except (OSError, ValueError):
        return None


def _number(kind, least, most, rule):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError("'%s': the rule is %s" % (text, rule))
        return value

    return parse


def _webhook(text):
    if text.startswith("@"):
        try:
            with open(text[1:]) as file:
                text = file.read().strip()
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(_explain(error))
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("the rule is an address that begins with http:// or https://")
    return text


def parser():
    """The command line."""
    one = argparse.ArgumentParser(prog="mirilla_kit.py", description="Run a detector on the Vision Kit.")
    count = _number(int, 1, 1000000, "a whole number from 1 on")
    seconds = _number(float, 0, 1e6, "seconds, 0 or more")
    one.add_argument(
        "--dir",
        default=os.path.dirname(os.path.abspath(__file__)),
        metavar="FOLDER",
        help="where the .binaryproto and its model.json lie (default: beside this program)",
    )
    one.add_argument(
        "--source",
        default="camera",
        metavar="camera|FILE|FOLDER",
        help="the camera, a picture, or a folder's pictures again and again (default: camera)",
    )
    one.add_argument("--once", action="store_true", help="one frame, or each picture once; then end")
    one.add_argument("--json", action="store_true", help="a JSON line for each frame and event on standard output")
    one.add_argument(
        "--threshold",
        type=_number(float, 0, 1, "0 to 1"),
        metavar="T",
        help="report scores from T on (default: what model.json recommends)",
    )
    one.add_argument("--dense", action="store_true", help="ask for whole outputs (slower; to compare)")
    one.add_argument(
        "--framerate", type=_number(int, 1, 40, "1 to 40"), default=30, metavar="N", help="of the camera (default: 30)"
    )
    one.add_argument(
        "--max-rate",
        type=_number(float, 0.001, 1000, "more than 0"),
        metavar="N",
        help="at most N pictures a second (default: as fast as it goes)",
    )
    one.add_argument(
        "--tries",
        type=_number(int, 0, 1000000, "0 or more"),
        metavar="N",
        help="give up after N faults in a row; 0: never (default: 0, with --once 3)",
    )
    one.add_argument(
        "--stall",
        type=seconds,
        default=90.0,
        metavar="S",
        help="end with code 70 when nothing moves for S seconds, to be started again; 0: never (default: 90)",
    )
    web = one.add_argument_group("web page")
    web.add_argument(
        "--web",
        type=_number(int, 0, 65535, "0 to 65535"),
        metavar="PORT",
        help="show live picture, boxes, rate and temperature at this port (0: a free one)",
    )
    web.add_argument(
        "--web-host",
        default="0.0.0.0",
        metavar="H",
        help="address to listen on (default: 0.0.0.0, all of this machine's)",
    )
    web.add_argument(
        "--web-token-file",
        metavar="FILE",
        help="keep the token here, so that the page's address stays (default: a new one each time, or "
        "that of the variable MIRILLA_WEB_TOKEN)",
    )
    shots = one.add_argument_group("snapshots")
    shots.add_argument("--snapshots", metavar="DIR", help="save a picture here when something is seen")
    shots.add_argument("--snapshots-max", type=count, default=200, metavar="N", help="keep the newest N (default: 200)")
    shots.add_argument(
        "--snapshots-every", type=seconds, default=5.0, metavar="S", help="at most one in S seconds (default: 5)"
    )
    alert = one.add_argument_group("alert")
    alert.add_argument(
        "--alert-command",
        metavar="CMD",
        help="run CMD (no shell) with the event as JSON on its standard input and in MIRILLA_ALERT",
    )
    alert.add_argument(
        "--alert-webhook",
        type=_webhook,
        metavar="URL",
        help="POST the event as JSON to URL; @FILE reads it from a file, as it may be a secret",
    )
    alert.add_argument(
        "--alert-label",
        action="append",
        default=[],
        metavar="LABEL",
        help="alerts and snapshots for this label only; may be repeated (default: for all)",
    )
    alert.add_argument(
        "--alert-min-frames",
        type=count,
        default=3,
        metavar="N",
        help="frames in a row with an object that raise it (default: 3)",
    )
    alert.add_argument(
        "--alert-clear-frames",
        type=count,
        default=15,
        metavar="N",
        help="frames in a row without one that clear it (default: 15)",
    )
    alert.add_argument(
        "--alert-every",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="at least so long between two actions (default: 60)",
    )
    alert.add_argument("--led", action="store_true", help="button light: green, red at an alert, yellow at a fault")
    alert.add_argument("--buzzer", action="store_true", help="sound the buzzer at an alert")
    alert.add_argument(
        "--gpio",
        type=_number(int, 0, 27, "a BCM number, 0 to 27"),
        metavar="PIN",
        help="hold this pin high during an alert",
    )
    return one


def main(arguments=None):
    """Exit codes: 0 done or ended by SIGTERM, 1 something is wrong, 2 usage, 70 stalled, 130 Ctrl-C."""
    options = parser().parse_args(arguments)
    if options.tries is None:
        options.tries = 3 if options.once else 0

    def stop(number, frame):
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_IGN)  # the end must not be cut short
        raise Stop(number)

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, stop)
    try:
        return Program(options).run()
    except Stop as stopped:
        return 0 if stopped.number == signal.SIGTERM else 130
    except KitError as error:
        sys.stderr.write("mirilla_kit: error: %s\n" % error)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more; no complaint at exit
        return 0
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    sys.exit(main())
