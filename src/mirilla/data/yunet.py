"""YuNet, a face detector, run in onnxruntime: the teacher for labelling pictures and for distillation.

    yunet = YuNet.load("yunet_n_dynamic.onnx")
    boxes_yxyx, scores = yunet(picture)

Source: github.com/ShiqiYu/libfacedetection.train (MIT) and OpenCV's model zoo (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirilla import boxes, files
from mirilla.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import onnxruntime

SIZES_PX = (320, 640)  # of the longer side: the smaller detects faces that fill the picture, the larger distant ones
MIN_SCORE = 0.3
_STRIDES = (8, 16, 32)
_NMS_IOU = 0.4

Found = tuple[NDArray[np.floating], NDArray[np.floating]]  # boxes_yxyx (N, 4), scores (N,)


@dataclass(frozen=True, eq=False)
class YuNet:
    """A face detector.

    Attributes:
        session: onnxruntime's session of a YuNet with an input of any size.
        digest: SHA-256 of its file.
        sizes_px: lengths of the longer side at which each picture is scaled and run.
        min_score: detections with a lower score are dropped.
    """

    session: onnxruntime.InferenceSession
    digest: str
    sizes_px: tuple[int, ...] = SIZES_PX
    min_score: float = MIN_SCORE

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        sizes_px: Sequence[int] = SIZES_PX,
        min_score: float = MIN_SCORE,
        threads: int | None = None,
    ) -> YuNet:
        """Open a YuNet.

        Args:
            threads: number of onnxruntime's threads; None: OMP_NUM_THREADS, or all cores.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            ModelError: not an ONNX file, or not a YuNet.
        """
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "onnx", "A teacher") from None
        with files.explaining(path):
            content = Path(path).read_bytes()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path}: not a whole ONNX model ({reason}).", "Copy the file again.") from None
        names = {output.name for output in session.get_outputs()}
        missing = sorted({f"{kind}_{s}" for kind in ("cls", "obj", "bbox") for s in _STRIDES} - names)
        shape = session.get_inputs()[0].shape
        if missing:
            raise ModelError(
                f"{path}: not a YuNet: it has no output '{missing[0]}'.",
                "Give a YuNet's ONNX file, such as face_detection_yunet of OpenCV's model zoo.",
            )
        if any(isinstance(side, int) for side in shape[2:]):
            raise ModelError(
                f"{path}: its input has the fixed size {'x'.join(map(str, shape[2:]))}.",
                "Give a YuNet that takes pictures of any size (yunet_n_dynamic.onnx).",
            )
        return cls(session, hashlib.sha256(content).hexdigest(), tuple(sizes_px), min_score)

    def __call__(self, image: NDArray[np.uint8]) -> Found:
        """Faces in a picture (H, W, 3) uint8 RGB, best first: boxes_yxyx, normalised and clipped, and scores."""
        parts = [self._detect(image, size) for size in self.sizes_px]
        boxes_yxyx, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        kept = boxes.nms(boxes_yxyx, scores, _NMS_IOU, len(scores))
        return boxes.clip(boxes_yxyx[kept]), scores[kept]

    def _detect(self, image: NDArray[np.uint8], size_px: int) -> Found:
        height, width = image.shape[:2]
        scale = size_px / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
        canvas = np.zeros((-(-rows // 32) * 32, -(-columns // 32) * 32, 3), np.float32)
        canvas[:rows, :columns] = small[:, :, ::-1]  # YuNet takes BGR
        outputs = [output.name for output in self.session.get_outputs()]
        inputs = {self.session.get_inputs()[0].name: np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])}
        results = map(np.asarray, self.session.run(outputs, inputs))
        out = dict(zip(outputs, results, strict=True))
        boxes_yxyx, scores = zip(
            *(_decoded(out, s, canvas.shape[1] // s, self.min_score) for s in _STRIDES), strict=True
        )
        return np.concatenate(boxes_yxyx) / [rows, columns, rows, columns], np.concatenate(scores)


def _decoded(out: Mapping[str, NDArray[np.float32]], stride: int, across: int, min_score: float) -> Found:
    """Boxes [ymin, xmin, ymax, xmax] in pixels and scores of one feature map.

    The score is the geometric mean of class and objectness. Centres are coded as offsets from the cell's corner,
    sizes as logarithms, both in strides.
    """
    score = np.sqrt(np.clip(out[f"cls_{stride}"].reshape(-1), 0, 1) * np.clip(out[f"obj_{stride}"].reshape(-1), 0, 1))
    cells = np.flatnonzero(score >= min_score)
    codes = out[f"bbox_{stride}"].reshape(-1, 4)[cells].astype(np.float64)
    x, y = (cells % across + codes[:, 0]) * stride, (cells // across + codes[:, 1]) * stride
    half_w, half_h = np.exp(codes[:, 2]) * stride / 2, np.exp(codes[:, 3]) * stride / 2
    return np.stack([y - half_h, x - half_w, y + half_h, x + half_w], 1), score[cells].astype(np.float64)
