"""What older weights bring: one short training from scratch, from sliced backbones, from an old detector.

    start       first weights
    scratch     initial values
    keras       the base network sliced from MobileNet v1 0.25 of Keras Applications (ImageNet)
    torch       the same from another 0.25 network (see ../shared/weights/README.md)
    imported    an old detector of another class, imported from its frozen graph (`mirilla import`)

All runs have the same data, seed, steps, schedule and augmentation, and are measured with their moving
averages on held-out photos at the same steps. Run it (needs ../shared beside the project):

    python benchmarks/fine_tuning.py --out DIR [--steps 3000] [--points 6] [--starts scratch keras ...]

A run that was stopped goes on when the same command is given again. DIR/curves.json has all figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import LABELS, SHARED, held_out, records

from mirilla import config, console
from mirilla.detect import Detector
from mirilla.evaluation import evaluate_model
from mirilla.files import write_text
from mirilla.job import recipe
from mirilla.training import checkpoint, log
from mirilla.training.importing import import_checkpoint
from mirilla.training.trainer import train

ARCHIVES = {
    "keras": SHARED / "weights/mobilenet_v1_025_imagenet_keras.npz",
    "torch": SHARED / "weights/mobilenet_v1_025_imagenet_torch.npz",
}
OLD_GRAPH = SHARED / "data/bonnet/PCK_frozen_inference_graph.pb"
STARTS = ("scratch", *ARCHIVES, "imported")


def pipeline_of(start: str, args: argparse.Namespace, path: Path) -> config.Pipeline:
    """The run's pipeline.config; runs differ in their first weights alone."""
    made = config.sample(1, path, path, path.with_name("label_map.pbtxt"), keep_aspect_ratio=True)
    recipe.apply(recipe.for_steps(args.steps, args.batch_size), made)
    made.mirilla.checkpoint_every_steps = max(1, args.steps // args.points)
    made.mirilla.seed = args.seed
    if start in ARCHIVES:
        made.train_config.fine_tune_checkpoint = str(ARCHIVES[start])
        made.mirilla.fine_tune_slice_channels = True
    elif start == "imported":
        folder = args.out / "old_detector"
        old = checkpoint.newest(folder)
        if old is None:  # its picture was squashed to the input; its weights take either
            squashed = config.sample(1, path, path, path.with_name("label_map.pbtxt"))
            old = import_checkpoint(OLD_GRAPH, squashed, LABELS, folder).checkpoint
        made.train_config.fine_tune_checkpoint = str(old)
        made.train_config.fine_tune_checkpoint_type = "detection"
    return made


def curve(start: str, args: argparse.Namespace, path: Path, photos: list) -> list[dict]:
    """Train, stopping to measure at `points` steps."""
    folder = args.out / start
    pipeline = pipeline_of(start, args, path)
    notes = folder / "curve.json"
    points: list[dict] = json.loads(notes.read_text()) if notes.is_file() else []
    for i in range(1, args.points + 1):
        step = args.steps * i // args.points
        if any(one["step"] == step for one in points):
            continue
        train(pipeline, folder, num_steps=step, device=args.device)
        entries = [e for e in log.read(folder) if "loss" in e and e["step"] > step - args.steps / args.points]
        detector = Detector.load(folder)
        result = evaluate_model(detector, photos, LABELS, ("faces",), protocol={"model": start})[0]
        points.append(
            {
                "step": step,
                "loss": sum(e["loss"] for e in entries) / max(len(entries), 1),
                "figures": result.as_json()["figures"],
                "protocol": result.protocol_text,
            }
        )
        write_text(notes, json.dumps(points, indent=1) + "\n")
    return points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--points", type=int, default=6, help="measurements on the way")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--data", nargs="+", default=["ilc2021", "roboflow_gray"], help="sets to learn from")
    parser.add_argument("--eval-data", default="ilc2021")
    parser.add_argument("--train-photos", type=int, help="the first so many only")
    parser.add_argument("--eval-photos", type=int, help="the first so many only")
    args = parser.parse_args()
    path = records(args.out, args.data, args.train_photos)
    photos = held_out(args.eval_data, args.eval_photos)
    curves = {start: curve(start, args, path, photos) for start in args.starts}
    write_text(args.out / "curves.json", json.dumps(curves, indent=1) + "\n")
    names = list(next(iter(curves.values()))[0]["figures"])
    for title, value in (
        ("mean training loss since the measurement before", lambda p: p["loss"]),
        *(
            (f"{name}, {len(photos)} photos of {args.eval_data}", lambda p, n=name: p["figures"][n])
            for name in names
        ),
    ):
        rows = [
            (start, *("none" if value(p) is None else f"{value(p):.3f}" for p in points))
            for start, points in curves.items()
        ]
        console.table(title, ("start", *(f"step {p['step']}" for p in next(iter(curves.values())))), rows)
        console.say()
    console.say(f"({next(iter(curves.values()))[0]['protocol']})")


if __name__ == "__main__":
    main()
