"""What a teacher is worth where labels are missing: every second face loses its box, and YuNet may make up for it.

    python benchmarks/teacher.py --out DIR [--size 128] [--steps 1000] [--seeds 0 1]
    python benchmarks/page.py --teacher DIR/ablation.jsonl

    all labels              the recipe on all boxes
    half the labels         every second box taken away (by a hash; ignored ones stay): such a face is background
    half, pseudo-labels     what YuNet finds and no box meets is learnt, or ignored where YuNet is unsure
    half, soft labels       YuNet looks at every example that the network is shown (`mirilla.distillation`)
    half, both              as 'mirilla run --teacher' does

Each is a `mirilla train` as in ablation.py, and measured as there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: figures are of one core

# ruff: noqa: E402
import ablation
import numpy as np
import page
import variants
from common import FACES, LABELS, SETS, SIZES, held_out
from seeds import RESIZES

from mirilla import console
from mirilla.data import Dataset, combine, read_dataset
from mirilla.data.filters import keep
from mirilla.data.sample import Sample
from mirilla.data.teacher import teach
from mirilla.data.tfrecord import write_tfrecords
from mirilla.labels import save_label_map

SOFT = f'mirilla {{ distillation {{ teacher: "{variants.YUNET}" }} }}'
VARIANTS = (
    ("half the labels", "half", ""),
    ("all labels", "all", ""),
    ("half, pseudo-labels", "taught", ""),
    ("half, soft labels", "half", SOFT),
    ("half, both", "taught", SOFT),
)


def halved(sample: Sample) -> Sample:
    """The sample without every second of its labelled boxes."""
    name = sample.filename.encode()
    return keep(
        sample,
        np.array(
            [
                bool(sample.ignore[i]) or hashlib.sha256(name + bytes([i % 256])).digest()[0] % 2 == 0
                for i in range(len(sample))
            ],
            bool,
        ),
    )


def records(folder: Path) -> dict[str, Path]:
    """The three training sets, made once: name -> TFRecord file, a label map beside it."""
    paths = {name: folder / name / "train.tfrecord" for name in ("all", "half", "taught")}
    if not all(path.is_file() for path in paths.values()):
        whole = combine([read_dataset(FACES / s / "bbx_gt_ignore.txt", split="train") for s in SETS])
        half = whole.with_samples(map(halved, whole.samples))
        taught = teach(half, variants.YUNET, cache=folder / "yunet.jsonl")
        console.echo(f"{whole.boxes} boxes, {half.boxes} left. {taught.notes[-1]}")
        sets: dict[str, Dataset] = {"all": whole, "half": half, "taught": taught}
        for name, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tfrecords(sets[name].samples, ["face"], path)
            save_label_map(path.with_name("label_map.pbtxt"), LABELS)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("teacher"), metavar="DIR")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--size", type=int, default=128, metavar="PX", help="side of the input (default: 128)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    args.device, args.keep, args.data, args.eval_data = None, False, list(SETS), "ilc2021"
    paths, photos, out = records(args.out), held_out(args.eval_data), args.out
    lines = out / ablation.LINES
    done = {(one["variant"], one["seed"]) for one in ablation.read_lines(lines)}
    for seed in args.seeds:
        for name, part, overlay in VARIANTS:
            if (name, seed) in done:
                continue
            variant = variants.Variant(name, start=str(variants.IMAGENET), overlay=overlay)
            pipeline = variants.pipeline(variant, paths[part], args.steps, args.batch_size, seed, size_px=args.size)
            args.out = out / part  # decoded pictures are kept by set
            line = ablation.run(variant, seed, pipeline, args, photos)
            with open(lines, "a") as file:
                file.write(json.dumps(line) + "\n")
            figures = " / ".join(f"{resize} {line['figures'][resize][SIZES[1]]:.3f}" for resize in RESIZES)
            console.echo(f"{name}, seed {seed}: {SIZES[1]} {figures}, {line['cpu_s']:.0f} CPU s")
    console.echo(page.ablation_table(ablation.read_lines(lines)))


if __name__ == "__main__":
    main()
