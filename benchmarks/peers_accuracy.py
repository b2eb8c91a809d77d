"""Accuracy of two published small face detectors by Mirilla's `faces` protocol.

Result (340 photos of `ilc2021`'s eval split, AP@0.5 over all faces / >= 16 px / >= 24 px; half a minute on
one CPU thread):

    detector        boxes: csv             boxes: widerface       published with the data
    yunet_n_320     .717 / .816 / .825     .724 / .825 / .839     .720 / .817 / .833
    ultra_rfb320    .689 / .765 / .777     .689 / .765 / .780     .695 / .768 / .777
    yunet_n_640     .797 / .805 / .798     .793 / .803 / .797     .797 / .806 / .800

Run it (needs ../shared beside the project, onnxruntime and opencv-python-headless):

    python benchmarks/peers_accuracy.py [--boxes csv|widerface] [--detector NAME ...]

`csv` reads the boxes with their fractions of a pixel (annotations.csv, and the unlabelled faces to be ignored
from teacher_unmatched.csv); `widerface` reads bbx_gt_ignore.txt, the same boxes rounded to whole pixels.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import FACES, LABELS, PEER_PROTOCOLS, held_out, peer, require_shared

from mirilla.data import read_dataset
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.evaluation import evaluate_model

PUBLISHED = {
    "yunet_n_320": (0.720, 0.817, 0.833),
    "ultra_rfb320": (0.695, 0.768, 0.777),
    "yunet_n_640": (0.797, 0.806, 0.800),
}


def samples_of(folder: Path, boxes: str) -> list[Sample]:
    """The eval split, with the faces that the labels miss marked ignore."""
    if boxes == "widerface":
        return held_out(folder.name)
    missed: dict[str, list[list[float]]] = defaultdict(list)
    with open(folder / "teacher_unmatched.csv", newline="") as file:
        for row in csv.DictReader(file):
            missed[row["file"]].append([float(row[k]) for k in ("y1", "x1", "y2", "x2")])
    samples = []
    for sample in read_dataset(folder / "annotations.csv", split="eval").samples:
        extra = np.array(missed[Path(sample.filename).name]).reshape(-1, 4)
        extra = extra / np.array([sample.height_px, sample.width_px] * 2)
        count, more = len(sample), len(extra)
        samples.append(
            replace(
                sample,
                boxes_yxyx=np.concatenate([sample.boxes_yxyx, extra]),
                labels=sample.labels + ("face",) * more,
                ignore=np.concatenate([sample.ignore, np.ones(more, bool)]),
                difficult=None,
                group_of=None,
                is_crowd=None,
                weight=None,
            )
        )
        assert len(samples[-1]) == count + more
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", choices=("csv", "widerface"), default="csv")
    parser.add_argument("--detector", nargs="+", choices=tuple(PUBLISHED), default=list(PUBLISHED))
    args = parser.parse_args()
    require_shared()
    samples = samples_of(FACES / "ilc2021", args.boxes)
    decode_rgb(samples[0].image)  # a missing photo is said before the sessions start
    for name in args.detector:
        protocol = {
            "model": name,
            "detector": PEER_PROTOCOLS[name],
            "data set": f"ilc2021 eval, boxes from {args.boxes}",
        }
        result = evaluate_model(peer(name), samples, LABELS, ("faces",), protocol=protocol)[0]
        measured = " / ".join(f"{f.value:.4f}" for f in result.figures[:3])
        print(f"{name:14s} {measured}   published {' / '.join(f'{v:.3f}' for v in PUBLISHED[name])}")
        print(f"  {result.protocol_text}")


if __name__ == "__main__":
    main()
