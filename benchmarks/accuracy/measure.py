"""Detection accuracy of models and peers, in every way to run them, with intervals.

    python -m benchmarks.accuracy.measure [NAME=]MODEL ... --out DIR [--sets ilc2021 roboflow_gray caltech1999]

MODEL is a frozen graph (measured in float, and compiled and run in the emulator), a compiled model, or a folder with
one. Our models are run letterboxed and squashed. Protocol: the held-out photos of each set, ignored faces count neither
way, IoU 0.5, all-point AP over all faces, those of at least 16 px and at least 24 px; a face's size is sqrt(w*h) with
the photo's long side at 256. Intervals: 95 % of 1,000 bootstrap resamples of the photos. Differences are paired: both
models on the same resamples.

DIR gets accuracy.json, errors_by_size.svg, and contact sheets of the worst misses and false positives. The sheets show
photos, so DIR must be outside the project. Detections are kept in DIR/detections, so that a model runs only once.
Needs ../shared beside the project, onnxruntime, onnx, opencv-python-headless and matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: measure one core

# ruff: noqa: E402
import numpy as np
from benchmarks.accuracy import bootstrap, error_sizes, page, subjects
from benchmarks.common import LABELS, PEER_FILES, SETS, SIZES, held_out
from numpy.typing import NDArray

from mirilla import __version__, console
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.detections import Detections
from mirilla.errors import MirillaError
from mirilla.evaluation.faces import Faces, Matched
from mirilla.evaluation.interface import GroundTruth, ground_truths_of
from mirilla.files import write_text

SHOWN_PHOTOS = 64  # kept decoded for timing


@dataclass(frozen=True)
class Photos:
    """A held-out set: photos with their ground truth, and the bootstrap's weights."""

    name: str
    samples: list[Sample]
    truths: list[GroundTruth]
    drawn: np.ndarray


def photos_of(name: str, limit: int | None, resamples: int, seed: int) -> Photos:
    samples = held_out(name, limit)
    return Photos(
        name,
        samples,
        ground_truths_of(samples, LABELS, one_class=True),
        bootstrap.weights(len(samples), resamples, seed),
    )


def detections(subject: subjects.Subject, way: subjects.Way, photos: Photos, folder: Path) -> list[Detections]:
    """Detections on every photo, read from the cache if this model has already been run this way."""
    count = len(photos.samples)
    path = folder / f"{subject.key[:16]}-{way.resize}-{way.arithmetic}-{photos.name}-{count}.npz"
    if path.is_file():
        held = np.load(path)
        ends = np.cumsum(held["counts"])[:-1]
        parts = (np.split(held[key], ends) for key in ("boxes", "scores", "classes"))
        return [Detections(*arrays) for arrays in zip(*parts, strict=True)]
    found = []
    with console.progress(f"{subject.name} {way.resize} {way.arithmetic} {photos.name}", count, "photos") as bar:
        for sample in photos.samples:
            found.append(way.detect(decode_rgb(sample.image)))
            bar.advance()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        counts=[len(f) for f in found],
        boxes=np.concatenate([f.boxes_yxyx for f in found]),
        scores=np.concatenate([f.scores for f in found]),
        classes=np.concatenate([f.classes for f in found]),
    )
    return found


class Measured:
    """One way of running one model on one set."""

    def __init__(self, subject: subjects.Subject, way: subjects.Way, photos: Photos, found: list[Detections]):
        self.subject, self.way, self.photos, self.found = subject, way, photos, found
        faces = Faces()
        result = faces.evaluate(photos.truths, found)
        pairs = list(zip(photos.truths, found, strict=True))
        self.matches: dict[str, list[Matched]] = {
            size: [faces.match(*pair, bound) for pair in pairs]
            for size, bound in zip(SIZES, faces.bounds_px, strict=True)
        }
        self.resampled = {s: bootstrap.average_precisions(m, photos.drawn) for s, m in self.matches.items()}
        self.values = {s: f.value for s, f in zip(SIZES, result.figures, strict=False)}
        for size, matches in self.matches.items():  # two computations of the same metric
            again = bootstrap.average_precisions(matches, np.ones((1, len(pairs))))[0]
            assert np.isclose(again, self.values[size], atol=1e-9, equal_nan=True), (size, again, self.values)
        self.protocol = result.with_protocol(
            {"model": subject.name, "run": way.protocol, "photos": f"{photos.name} eval"}
        ).protocol_text

    @property
    def name(self) -> str:
        return f"{self.subject.name} ({self.way.resize}, {self.way.arithmetic})"

    def by_size(self) -> dict[str, Any]:
        return error_sizes.by_size(self.matches["all"], self.photos.drawn)

    def as_json(self) -> dict[str, Any]:
        figures = {s: bootstrap.interval(self.values[s], self.resampled[s]).as_json() for s in SIZES}
        return {
            "set": self.photos.name,
            "resize": self.way.resize,
            "arithmetic": self.way.arithmetic,
            "figures": figures,
            "by_size": self.by_size(),
            "protocol": self.protocol,
        }


def differences(measured: list[Measured]) -> list[dict[str, Any]]:
    """Paired differences on one set: fp16 against float, squashed against letterboxed, model against model."""
    pairs = []
    for a, b in itertools.combinations(measured, 2):
        if a.subject is b.subject:
            if (a.way.arithmetic == b.way.arithmetic) != (a.way.resize == b.way.resize):
                pairs.append((b, a))
        elif _is_main_way(a, measured) and _is_main_way(b, measured):
            pairs.append((a, b))
    return [
        {
            "a": a.name,
            "b": b.name,
            "figure": size,
            **bootstrap.interval(a.values[size] - b.values[size], a.resampled[size] - b.resampled[size]).as_json(),
        }
        for a, b in pairs
        for size in SIZES
    ]


def _is_main_way(way: Measured, measured: list[Measured]) -> bool:
    """Whether the model is compared with others in this way; see `page.main_way`."""
    ways = [m for m in measured if m.subject is way.subject]
    halves = [m for m in ways if m.way.arithmetic == "fp16"] or ways
    return way is max(halves, key=lambda m: m.values[">= 16 px"])


def sheets(way: Measured, folder: Path, count: int) -> None:
    """Contact sheets of the worst misses and false positives of one model."""
    photos = _Decoded(way.photos.samples)
    for what, draw in (("misses", error_sizes.worst_misses), ("false_alarms", error_sizes.worst_false_alarms)):
        sheet = draw(photos, way.photos.truths, way.found, way.matches["all"], count, way.name)
        name = f"{way.subject.name}_{way.photos.name}_{what}.jpg".replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        sheet.save(folder / name, quality=88)
        console.echo(f"made {folder / name}")


class _Decoded(Sequence[NDArray[np.uint8]]):
    """Photos that are decoded on access."""

    def __init__(self, samples: list[Sample]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:  # type: ignore[override]  # no slices
        return decode_rgb(self.samples[number].image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="[NAME=]MODEL")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--peers", nargs="*", choices=tuple(PEER_FILES), default=["yunet_n_320", "ultra_rfb320"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["ilc2021"])
    parser.add_argument("--photos", type=int, metavar="N", help="use only the first N photos of each set, for a trial")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")
    parser.add_argument("--sheet", type=int, default=24, metavar="N", help="photos per sheet; 0 for no sheets")
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--name", default="accuracy", help="name of the JSON file (default: accuracy)")
    args = parser.parse_args()
    if args.out.resolve().is_relative_to(Path(__file__).resolve().parents[2]):
        sys.exit(f"--out {args.out} lies in the project; the sheets show photos that may not go there")
    sets = [photos_of(name, args.photos, args.resamples, args.seed) for name in args.sets]
    measuring = [_subject(text) for text in args.models] + [subjects.peer_subject(name) for name in args.peers]
    if not measuring:
        sys.exit("give a model, or --peers")
    content: dict[str, Any] = {
        "made_by": f"mirilla {__version__}",
        "machine": platform.processor() or platform.machine(),
        "sets": args.sets,
        "photos": {photos.name: len(photos.samples) for photos in sets},
        "intervals": f"95 % of {args.resamples} bootstrap resamples of the photos, seed {args.seed}",
        "models": [],
        "differences": [],
    }
    for_time = [decode_rgb(s.image) for s in sets[0].samples[:SHOWN_PHOTOS]]
    everything: list[Measured] = []
    for subject in measuring:
        measured = [
            Measured(subject, way, photos, detections(subject, way, photos, args.out / "detections"))
            for photos in sets
            for way in subject.ways
        ]
        everything += measured
        content["models"].append(
            {
                "name": subject.name,
                "is_peer": subject.is_peer,
                "facts": subject.facts,
                "ms": None if args.no_timing else subject.time_ms(for_time),
                "measured": [m.as_json() for m in measured],
            }
        )
    main_set = [m for m in everything if m.photos is sets[0]]
    content["differences"] = differences(main_set)
    write_text(args.out / f"{args.name}.json", json.dumps(_plain(content), indent=1) + "\n")
    _show(content, args.sets)
    best = [m for m in main_set if _is_main_way(m, main_set)]
    error_sizes.chart(
        {m.subject.name: m.by_size() for m in best},
        args.out / "errors_by_size.svg",
        f"{sets[0].name} eval, {error_sizes.ALARMS_PER_PHOTO:g} false alarms a photo",
    )
    if args.sheet:
        for way in best:
            sheets(way, args.out, args.sheet)


def _subject(text: str) -> subjects.Subject:
    name, _, path = text.rpartition("=")
    try:
        return subjects.model(name or Path(path).stem, Path(path))
    except MirillaError as error:
        sys.exit(str(error))


def _show(content: dict[str, Any], sets: list[str]) -> None:
    for name in sets:
        console.echo(f"\n{name} eval, {content['photos'][name]} photos ({content['intervals']})\n")
        console.echo(page.accuracy_table(content, name))
    console.echo(page.cost_table(content))
    console.echo(page.differences_table(content))
    if page.MAIN_SET in sets:
        console.echo(page.sizes_table(content))
    for model in content["models"]:
        for note in model["facts"]["notes"]:
            console.echo(f"{model['name']}: {note}")


def _plain(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    main()
