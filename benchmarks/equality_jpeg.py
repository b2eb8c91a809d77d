"""What the JPEG decoder does to a detector: the same photos by Pillow, which Mirilla uses, and as TensorFlow 1 decoded.

libjpeg-turbo's accurate inverse cosine transform stands against its fast one (`dct_method="INTEGER_FAST"`, TensorFlow
1's default), both with smooth upsampling of the colours. Needs TensorFlow:

    python benchmarks/equality_jpeg.py MODEL DATASET [--split SPLIT]

docs/equality.md has the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mirilla import boxes, console, postprocess, resize
from mirilla.data import read_dataset
from mirilla.data.images import decode_rgb, header_of
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.evaluation import measure


def decode_as_tensorflow_1(content: bytes) -> np.ndarray:
    """(H, W, 3) uint8."""
    import tensorflow as tf

    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_FAST", fancy_upscaling=True).numpy()


def look(detector: Detector, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, Detections]:
    """Of all anchors, before NMS: scores (A,) and box codes (A, 4); and the detections."""
    spec = detector.card.spec
    pixels, box = resize.to_input(image, spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio)
    codes, logits = (output[0] for output in detector.network(pixels[None]))
    found = postprocess.detections(codes, logits, detector.card.anchors_yxyx, spec, box)
    return postprocess.scores(logits, spec.post_processing.score_converter)[:, 1:].max(1), codes, found


def moved(first, second) -> tuple[float, float]:
    """(IoU, score's difference) of the best detections of two decodings, box for box: the worst of scores from 0.3."""
    strong = first.scores >= 0.3
    if not strong.any() or not len(second):
        return 1.0, 0.0
    iou = boxes.iou(first.boxes_yxyx[strong], second.boxes_yxyx)
    partner = iou.argmax(1)
    return float(iou.max(1).min()), float(np.abs(first.scores[strong] - second.scores[partner]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split")
    args = parser.parse_args()
    detector = Detector.load(args.model)
    samples = []
    levels, means, codes_, scores_, ious, shifts = [], [], [], [], [], []
    found: dict[str, list] = {"Pillow": [], "TensorFlow 1": []}
    for sample in read_dataset(args.dataset, split=args.split).samples:
        content = sample.encoded()
        header = header_of(content)
        if header.format != "jpeg" or header.orientation != 1:
            continue
        pair = decode_rgb(content), decode_as_tensorflow_1(content)
        samples.append(sample)
        difference = np.abs(pair[0].astype(int) - pair[1])
        levels.append(difference.max())
        means.append(difference.mean())
        (scores, codes, one), (other_scores, other_codes, other) = (look(detector, image) for image in pair)
        scores_.append(np.abs(scores - other_scores).max())
        codes_.append(np.abs(codes - other_codes)[scores >= 0.3].max(initial=0))
        for name, result in zip(found, (one, other), strict=True):
            found[name].append(result)
        iou, shift = moved(one, other)
        ious.append(iou)
        shifts.append(shift)
    differences = {
        "pixels, largest of a photo (levels)": levels,
        "pixels, mean of a photo (levels)": means,
        "scores of all anchors, largest of a photo": scores_,
        "box codes of anchors with scores from 0.3, largest of a photo": codes_,
        "detections from 0.3: score, largest of a photo": shifts,
        "detections from 0.3: 1 - IoU, largest of a photo": 1 - np.array(ious),
    }
    rows = [
        [what, *(f"{v:.2g}" for v in (np.mean(values), np.percentile(values, 95), np.max(values)))]
        for what, values in differences.items()
    ]
    console.print_table(f"{len(samples)} photos", ["difference", "mean of the photos", "95 %", "largest"], rows)
    for name, one in found.items():
        for result in measure(one, samples, detector.card.labels, ["faces"]):
            console.echo(name + ": " + ", ".join(f"{f.name} {f.value:.4f}" for f in result.figures))


if __name__ == "__main__":
    main()
