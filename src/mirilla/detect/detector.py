"""Detector: any model file in, detections out.

    detector = Detector.load("export/frozen_inference_graph.pb")
    detections = detector(photo)             # (H, W, 3) uint8 RGB
    detections.boxes_yxyx, detections.scores, detections.classes

Only numpy is required. A frozen graph runs in onnxruntime where it is installed (`mirilla.detect.engine`), else in
the numpy reference; a compiled model runs with the bonnet's precision.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import postprocess, resize, shipped
from mirilla.detect.models import Choice, graph_network, read_graph_for, read_model
from mirilla.detections import Detections
from mirilla.errors import ModelError
from mirilla.model.card import ModelCard
from mirilla.parallel import in_order
from mirilla.protos.tensorflow_pb2 import GraphDef
from mirilla.targets.target import Candidates, Network

Photo = NDArray[np.uint8]  # (H, W, 3) RGB


class _Buffer(threading.local):
    """The thread's own memory for the network's input, reused: new memory is slow."""

    pixels: NDArray[np.float32] | None = None

    def of_size(self, height_px: int, width_px: int) -> NDArray[np.float32]:
        if self.pixels is None or self.pixels.shape[:2] != (height_px, width_px):
            self.pixels = resize.empty(height_px, width_px)
        return self.pixels


_INPUT = _Buffer()


@dataclass(frozen=True, eq=False)
class Detector:
    """A model with its post-processing.

    card: the model's spec, labels and anchors.
    network: normalised pictures (N, height, width, 3) -> box codes and logits, or boxes and scores.
    threshold: lower scores are not reported; None for the model's own, very low threshold, which evaluation needs.
    source: the file it came from.
    notes: what was assumed because the model's file does not tell it.
    """

    card: ModelCard
    network: Network
    threshold: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float | None = None,
        averages: bool | None = None,
        engine: str | None = None,
    ) -> Detector:
        """Load a model.

        Args:
            path: a frozen graph (.pb; Mirilla's own with model.json beside it, or any SSD of the Object
                Detection API), a compiled model (.binaryproto), a folder that holds one of them, or a
                training folder (its newest checkpoint); None for the face detector that ships with Mirilla.
            threshold: the lowest score that is reported.
            averages: of a training folder, run the moving averages (True) or the raw weights (False); None:
                as eval_config.use_moving_averages in its pipeline.config says.
            engine: "onnxruntime" or "numpy", for a frozen graph and a training folder; None: the fastest one
                that is installed.

        Raises:
            ModelError: there is no model, it cannot be read, or it does not match its model.json.
            MirillaError: a file cannot be opened, or the engine is not installed.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ModelError(f"The threshold {threshold} is not between 0 and 1.", "Give a score, for example 0.5.")
        model = read_model(shipped.default_model() if path is None else Path(path), Choice(averages, engine))
        return cls(model.card, model.network, threshold, model.source, model.notes)

    @classmethod
    def from_graph(
        cls,
        graph_def: GraphDef,
        card: ModelCard,
        *,
        threshold: float | None = None,
        source: str = "the graph",
        engine: str | None = None,
    ) -> Detector:
        """A detector from a frozen graph in memory."""
        network = graph_network(read_graph_for(graph_def, card), card, source, engine)
        return cls(card, network, threshold, source)

    def __call__(self, image: Photo, threshold: float | None = None) -> Detections:
        """Detect objects in one photo (H, W, 3) uint8 RGB of any size. Threads may call it at the same time."""
        spec = self.card.spec
        size = spec.height_px, spec.width_px
        pixels = _INPUT.of_size(*size)
        _, letterbox = resize.to_input(_checked(image), *size, keep_aspect_ratio=spec.keep_aspect_ratio, out=pixels)
        outputs = self.network(pixels[None])
        least = self.threshold if threshold is None else threshold
        if least is not None:  # the API's own rule is 'greater than'; a threshold that a person gives is inclusive
            least = float(np.nextafter(np.float32(least), np.float32(-1)))
        if isinstance(outputs, Candidates):
            boxes, scores = outputs.boxes_yxyx[0], outputs.scores[0]
            return postprocess.multiclass_nms(boxes, scores, spec.post_processing, least, letterbox)
        codes, logits = outputs.codes[0], outputs.logits[0]
        return postprocess.detections(codes, logits, self.card.anchors_yxyx, spec, letterbox, least)

    def batch(self, images: Sequence[Photo], threshold: float | None = None) -> list[Detections]:
        """Detect objects in several photos, which may differ in size."""
        return list(self.stream(images, threshold))

    def stream(self, images: Iterable[Photo], threshold: float | None = None) -> Iterator[Detections]:
        """Like `batch`, but yield the results one by one, in order; each core works on one photo."""
        return in_order(lambda image: self(image, threshold), images)

    @property
    def labels(self) -> Mapping[int, str]:
        """Class id -> display name."""
        return {label.id: label.shown for label in self.card.labels}

    @property
    def protocol(self) -> str:
        """How figures of this detector are measured: input, NMS, threshold, number of boxes."""
        spec, post = self.card.spec, self.card.spec.post_processing
        least = f"scores > {post.score_threshold:g}" if self.threshold is None else f"scores >= {self.threshold:g}"
        return (
            f"input {spec.width_px}x{spec.height_px}, {spec.resize}, one view, NMS IoU {post.iou_threshold:g}, "
            f"{least}, at most {post.max_total_detections} boxes"
        )


def _checked(image: Photo) -> Photo:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a photo must be (H, W, 3) uint8 RGB; this is {image.shape} {image.dtype}")
    return image
