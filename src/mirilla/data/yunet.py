"""YuNet, a face detector as an ONNX file, in onnxruntime: what labels pictures, and what a small network learns from.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirilla import boxes, files
from mirilla.errors import MissingExtraError, ModelError

SIZES_PX = (320, 640)  # the picture's longer side: the smaller finds faces that fill it, the larger those far away
LEAST_SCORE = 0.3
_STRIDES = (8, 16, 32)
_NMS_IOU = 0.4

Found = tuple[NDArray[np.floating], NDArray[np.floating]]  # boxes_yxyx (N, 4), scores (N,)


@dataclass(frozen=True, eq=False)
class YuNet:
    """A face detector.

    session: onnxruntime's, of a YuNet whose input may have any size.
    digest: SHA-256 of its file.
    sizes_px: it looks at a picture with its longer side at each of these.
    least_score: less certain finds are dropped.
    """

    session: Any
    digest: str
    sizes_px: tuple[int, ...] = SIZES_PX
    least_score: float = LEAST_SCORE

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        sizes_px: Sequence[int] = SIZES_PX,
        least_score: float = LEAST_SCORE,
        threads: int | None = None,
    ) -> YuNet:
        """Open a YuNet.

        Args:
            threads: of onnxruntime; None: as OMP_NUM_THREADS says, or all.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            ModelError: no ONNX file, or not of a YuNet.
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
        names = {one.name for one in session.get_outputs()}
        missing = sorted({f"{kind}_{s}" for kind in ("cls", "obj", "bbox") for s in _STRIDES} - names)
        shape = session.get_inputs()[0].shape
        if missing:
            raise ModelError(
                f"{path}: not a YuNet: it has no output '{missing[0]}'.",
                "Give a YuNet's ONNX file, face_detection_yunet of OpenCV's model zoo say.",
            )
        if any(isinstance(side, int) for side in shape[2:]):
            raise ModelError(
                f"{path}: its input has the fixed size {'x'.join(map(str, shape[2:]))}.",
                "Give a YuNet that takes pictures of any size (yunet_n_dynamic.onnx).",
            )
        return cls(session, hashlib.sha256(content).hexdigest(), tuple(sizes_px), least_score)

    def __call__(self, image: NDArray[np.uint8]) -> Found:
        """Faces in a picture (H, W, 3) uint8 RGB, best first: boxes_yxyx, normalised and clipped, and scores."""
        parts = [self._at(image, size) for size in self.sizes_px]
        found, scores = (np.concatenate(one) for one in zip(*parts, strict=True))
        kept = boxes.nms(found, scores, _NMS_IOU, len(scores))
        return boxes.clip(found[kept]), scores[kept]

    def _at(self, image: NDArray[np.uint8], size_px: int) -> Found:
        height, width = image.shape[:2]
        scale = size_px / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
        canvas = np.zeros((-(-rows // 32) * 32, -(-columns // 32) * 32, 3), np.float32)
        canvas[:rows, :columns] = small[:, :, ::-1]  # YuNet takes BGR
        outputs = [one.name for one in self.session.get_outputs()]
        fed = {self.session.get_inputs()[0].name: np.ascontiguousarray(canvas.transpose(2, 0, 1)[None])}
        out = dict(zip(outputs, self.session.run(outputs, fed), strict=True))
        found, scores = zip(*(_decoded(out, s, canvas.shape[1] // s, self.least_score) for s in _STRIDES), strict=True)
        return np.concatenate(found) / [rows, columns, rows, columns], np.concatenate(scores)


def _decoded(out: Mapping[str, NDArray], stride: int, across: int, least_score: float) -> Found:
    """One map's boxes [ymin, xmin, ymax, xmax] in pixels and scores: the geometric mean of class and
    objectness; centres are offsets from the cell's corner, sizes logarithms, both in strides.
    """
    score = np.sqrt(np.clip(out[f"cls_{stride}"].reshape(-1), 0, 1) * np.clip(out[f"obj_{stride}"].reshape(-1), 0, 1))
    cells = np.flatnonzero(score >= least_score)
    codes = out[f"bbox_{stride}"].reshape(-1, 4)[cells].astype(np.float64)
    x, y = (cells % across + codes[:, 0]) * stride, (cells // across + codes[:, 1]) * stride
    half_w, half_h = np.exp(codes[:, 2]) * stride / 2, np.exp(codes[:, 3]) * stride / 2
    return np.stack([y - half_h, x - half_w, y + half_h, x + half_w], 1), score[cells].astype(np.float64)
