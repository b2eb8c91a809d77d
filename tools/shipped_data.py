"""Build the data set that the shipped weights are trained on, from pictures with a clear licence only.

    python tools/shipped_data.py --clean clean --gray roboflow_gray --teacher yunet.onnx --out data

Needs mirilla[train,onnx,video]. `--clean` is a folder of data sets in WIDER FACE's text form, each with its LICENCE.md.
`--gray` is Roboflow's "Face Detection" (CC BY 4.0) with a split.csv; only what its authors filmed is used. The parts of
train.tfrecord:

  SET       the pictures of a clean set
  covered   the same pictures with masks and sunglasses drawn on (several copies of the varied sets)
  gray      the filmed part of the grey photos, with boxes tightened and missed faces added by the teacher
  mounted   people cut out of the portraits and mounted into scenes

eval.tfrecord has the same parts of other people: whole sets, and a share of the sets in which nobody occurs twice. It
is for choosing checkpoints and thresholds. Everything follows from --seed. provenance.json lists the parts with counts
and SHA-256, and each set's licence text.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import mounting
import numpy as np
import occlusion
from PIL import Image

from mirilla.boxes import iou
from mirilla.data import images, read_dataset, teacher, tfrecord
from mirilla.data.sample import Sample
from mirilla.data.split import share_of
from mirilla.data.yunet import YuNet
from mirilla.toy.backgrounds import background

# What the grey set's authors filmed themselves, by the first words of the file names. The rest (stock photos, a
# magazine's cover, frames of others' films) may be under its owners' rights and is left out.
FILMED = re.compile(
    r"^(IMG|gravitate-faces|mask-wearing-\d{6}|mask-no-mask|Mask|Inside-merge|PXL|mo-justin|face-detection|no-mask_mov"
    r"|no-mask-?\d*_mov|ashton-video|hand-signs-for-alex|Mat-Hand|WIN|Screen-Recording|Mohamed-Image|Photo-on"
    r"|mask_mov|mask-?\d*_mov|Image-from-iOS|video_|mohamed-headshot|MTraore-photo|Movie-on)"
)
HELD_OUT_SETS = ("coco_ccby", "misc_cc")  # people may occur twice in these; all of both is held out
HELD_OUT_SHARE = {"congress_modern": 0.08, "uk_parliament": 0.08, "synthetic_heads": 0.08, "background_photos": 0.15}
PORTRAITS = ("congress_modern", "uk_parliament", "face_research_lab", "us_gov_cc0")  # people are cut out of these
COPIES = {"us_gov_cc0": 2, "okf_ccby": 2, "synthetic_heads": 0, "background_photos": 0}  # covered copies; else one
CUTOUTS, MIN_CUT_PX = 1600, 36
BACKDROPS = 150
LABEL_MAP = "item {\n  id: 1\n  name: 'face'\n}\n"
_SAME_FACE_IOU = 0.4

Which = Literal["train", "held_out"]
Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass
class Part:
    """Samples for training, and of other people for choosing."""

    train: list[Sample] = field(default_factory=list)
    held_out: list[Sample] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, required=True)
    parser.add_argument("--gray", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mounted", type=int, default=3000)
    parser.add_argument(
        "--without", nargs="*", default=[], help="names of parts to leave out, to measure what they bring"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)

    parts = {path.name: clean_set(path) for path in sorted(args.clean.iterdir()) if (path / "images").is_dir()}
    licences = {name: (args.clean / name / "LICENCE.md").read_text() for name in parts}
    parts["gray"], left_out = filmed(args.gray, YuNet.load(args.teacher), args.out / "teacher.jsonl")
    print("drawing masks and sunglasses", flush=True)
    parts["covered"] = covered(parts, args)
    print("mounting people into scenes", flush=True)
    parts["mounted"] = Part(
        mounted(parts, "train", args.mounted, args), mounted(parts, "held_out", args.mounted // 10, args)
    )
    parts = {name: part for name, part in parts.items() if name not in args.without}
    facts = {"seed": args.seed, "left_out": left_out, "licences": licences, "coco_backgrounds": backgrounds(args.clean)}
    write(parts, facts, args.out)


def clean_set(folder: Path) -> Part:
    """A set, divided by people: see HELD_OUT_SETS and HELD_OUT_SHARE."""
    dataset = read_dataset(folder / "bbx_gt_ignore.txt")
    part = Part()
    for sample in dataset.samples:
        name = f"{folder.name}/{sample.filename}"
        sample = replace(sample, image=sample.encoded(), filename=name, attributes={})
        share = 1.0 if folder.name in HELD_OUT_SETS else HELD_OUT_SHARE.get(folder.name, 0.0)
        (part.held_out if share_of(sample.filename, 0) < share else part.train).append(sample)
    return part


def backgrounds(clean: Path) -> list[str]:
    """Addresses of the pictures without a face in coco_ccby, which stand behind rendered people."""
    bare = {sample.filename for sample in read_dataset(clean / "coco_ccby").samples if not len(sample)}
    rows = (line.split("\t") for line in (clean / "coco_ccby/sources.tsv").read_text().splitlines())
    return sorted(address for name, _, address in rows if name in bare)


def filmed(folder: Path, yunet: YuNet, cache: Path) -> tuple[Part, dict[str, int]]:
    """The part that its authors filmed, with the teacher's faces; and counts of what is left out, by name."""
    part, left_out = Part(), Counter()
    for name, samples in (("train", part.train), ("eval", part.held_out)):
        dataset = read_dataset(folder, split=name)
        kept = [s for s in dataset.samples if FILMED.match(s.filename)]
        left_out.update(
            re.split(r"[\d_.]", s.filename)[0] or "number" for s in dataset.samples if not FILMED.match(s.filename)
        )
        taught = teacher.teach(dataset.with_samples(kept), yunet, tighten=True, cache=cache)
        print(taught.notes[-1])
        samples += [replace(s, image=s.encoded(), filename=f"gray/{s.filename}") for s in taught.samples]
    return part, dict(left_out)


def covered(parts: dict[str, Part], args: argparse.Namespace) -> Part:
    """Copies of the pictures with faces, with something drawn on at least one of them."""
    made = Part()
    for name, part in parts.items():
        for samples, results in ((part.train, made.train), (part.held_out, made.held_out)):
            tasks = [(sample, copy, args) for sample in samples if len(sample) for copy in range(COPIES.get(name, 1))]
            results += [sample for sample in parallel(cover_one, tasks, args.processes) if sample is not None]
    return made


def cover_one(task: tuple[Sample, int, argparse.Namespace]) -> Sample | None:
    sample, copy, args = task
    pixels = images.decode_rgb(sample.image).copy()
    rng = np.random.default_rng([args.seed, 1, copy, *sample.filename.encode()])
    size = np.array([*pixels.shape[:2]] * 2)
    changed = False
    for box, face in list(landmarks(args.teacher)(pixels)):
        if iou((box / size)[None], sample.boxes_yxyx).max() >= _SAME_FACE_IOU:
            changed |= occlusion.cover(pixels, face, rng)
    if not changed:
        return None
    new = encoded(f"covered/{copy}/{sample.filename}", pixels, sample.boxes_yxyx, 88)
    return replace(new, labels=sample.labels, ignore=sample.ignore, weight=sample.weight)


@cache
def landmarks(path: Path) -> occlusion.LandmarkDetector:
    """One detector a process."""
    cv2.setNumThreads(1)
    return occlusion.LandmarkDetector(path)


def mounted(parts: dict[str, Part], which: Which, count: int, args: argparse.Namespace) -> list[Sample]:
    """Scenes with people who were cut out of the portraits and of their covered copies."""
    faces = list(single_faces(parts, which))
    order = np.random.default_rng([args.seed, 2]).permutation(len(faces))[:CUTOUTS]
    people = [person for person in parallel(cut_one, [faces[i] for i in order], args.processes) if person is not None]
    print(f"{which}: {len(people)} people cut out of {len(order)} pictures", flush=True)
    rng = np.random.default_rng([args.seed, 3])
    backgrounds = [
        images.decode_rgb(sample.image)
        for name in ("background_photos", "coco_ccby")
        for sample in getattr(parts[name], which)
        if not len(sample)
    ] + [np.asarray(background(rng, 640, 640)[0]) for _ in range(BACKDROPS)]
    global _MATERIAL
    _MATERIAL = people, backgrounds  # inherited by the processes
    return parallel(mount_one, [(which, args.seed, i) for i in range(count)], args.processes)


def single_faces(parts: dict[str, Part], which: Which) -> Iterator[Sample]:
    """Portraits with one face, large enough to cut out and all inside the picture."""
    for sample in [s for name in (*PORTRAITS, "covered") for s in getattr(parts[name], which)]:
        if len(sample) == 1 and not sample.ignore.any() and any(name in sample.filename for name in PORTRAITS):
            (box,) = sample.boxes_yxyx
            if (box[2] - box[0]) * sample.height_px >= MIN_CUT_PX and box.min() >= 0.01 and box.max() <= 0.95:
                yield sample


def cut_one(sample: Sample) -> mounting.Cutout | None:
    cv2.setNumThreads(1)
    return mounting.cut_out(images.decode_rgb(sample.image), sample.boxes_yxyx[0])


_MATERIAL: tuple[list[mounting.Cutout], list[mounting.Pixels]] = [], []


def mount_one(task: tuple[Which, int, int]) -> Sample:
    which, seed, index = task
    rng = np.random.default_rng([seed, 4, which == "train", index])
    scene = mounting.scene(*_MATERIAL, rng)
    sample = encoded(f"mounted/{which}-{index}.jpg", scene.pixels, scene.boxes_yxyx, int(rng.integers(60, 95)))
    return replace(sample, ignore=scene.ignore)


def parallel(function: Callable[[Item], Result], tasks: Sequence[Item], processes: int) -> list[Result]:
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        return list(pool.map(function, tasks, chunksize=10))


def write(parts: dict[str, Part], facts: dict[str, object], out: Path) -> None:
    """Write the records, the label map and provenance.json."""
    hashes = {}
    for which in ("train", "held_out"):
        samples = [sample for part in parts.values() for sample in getattr(part, which)]
        order = np.random.default_rng(facts["seed"]).permutation(len(samples))  # type: ignore[arg-type]
        file = out / ("train.tfrecord" if which == "train" else "eval.tfrecord")
        tfrecord.write_tfrecords([samples[i] for i in order], [teacher.FACE], file)
        hashes[f"{file.stem}_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (out / "label_map.pbtxt").write_text(LABEL_MAP)
    counts = {
        which: {
            name: {
                "pictures": len(getattr(part, which)),
                "faces": sum(int((~s.ignore).sum()) for s in getattr(part, which)),
                "ignored": sum(int(s.ignore.sum()) for s in getattr(part, which)),
            }
            for name, part in parts.items()
        }
        for which in ("train", "held_out")
    }
    (out / "provenance.json").write_text(json.dumps({**facts, **counts, **hashes}, indent=1) + "\n")
    print(json.dumps(counts, indent=1))


def encoded(name: str, pixels: np.ndarray, boxes: np.ndarray, quality: int) -> Sample:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    boxes = np.clip(boxes, 0, 1)
    return Sample(
        out.getvalue(), name, pixels.shape[0], pixels.shape[1], boxes, (teacher.FACE,) * len(boxes), where=name
    )


if __name__ == "__main__":
    main()
