"""What older weights bring: one short training from scratch, from sliced backbones, from an old detector.

    start       first weights
    scratch     initial values
    keras       the base network sliced from MobileNet v1 0.25 of Keras Applications (ImageNet)
    torch       the same from another 0.25 network (see ../shared/weights/README.md)
    imported    an old detector of another class, imported from its frozen graph (`mirilla import`)

All runs of a seed have the same data, steps, schedule and augmentation (those of `--recipe`, the original's by
default), and are measured with their moving averages on held-out photos at the same steps. Run it (needs ../shared
beside the project):

    python benchmarks/fine_tuning.py --out DIR [--steps 3000] [--points 6] [--seeds 0 1] [--starts scratch imported ...]

A run that was stopped goes on when the same command is given again. DIR/curves.json has all figures, DIR/curves.svg
draws them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import LABELS, SHARED, held_out, records

from mirilla import config, console
from mirilla.detect.detector import Detector
from mirilla.evaluation import evaluate_model
from mirilla.files import write_text
from mirilla.job import recipe
from mirilla.training import log
from mirilla.training.trainer import train
from mirilla.weights import checkpoint
from mirilla.weights.importing import import_checkpoint

ARCHIVES = {
    "keras": SHARED / "weights/mobilenet_v1_025_imagenet_keras.npz",
    "torch": SHARED / "weights/mobilenet_v1_025_imagenet_torch.npz",
}
OLD_GRAPH = SHARED / "data/bonnet/PCK_frozen_inference_graph.pb"
STARTS = ("scratch", *ARCHIVES, "imported")


def pipeline_of(start: str, seed: int, args: argparse.Namespace, path: Path) -> config.Pipeline:
    """The run's pipeline.config; runs differ in their first weights alone."""
    made = config.sample(1, path, path, path.with_name("label_map.pbtxt"), keep_aspect_ratio=True)
    recipe.apply(recipe.for_steps(args.steps, args.batch_size, args.recipe), made)
    made.mirilla.checkpoint_every_steps = max(1, args.steps // args.points)
    made.mirilla.seed = seed
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


def curve(start: str, seed: int, args: argparse.Namespace, path: Path, photos: list) -> list[dict]:
    """Train, stopping to measure at `points` steps."""
    folder = args.out / f"{start}-{seed}"
    pipeline = pipeline_of(start, seed, args, path)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--points", type=int, default=6, help="measurements on the way")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipe", choices=recipe.NAMES, default="tf1")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--data", nargs="+", default=["ilc2021", "roboflow_gray"], help="sets to learn from")
    parser.add_argument("--eval-data", default="ilc2021")
    parser.add_argument("--train-photos", type=int, help="the first so many only")
    parser.add_argument("--eval-photos", type=int, help="the first so many only")
    args = parser.parse_args()
    path = records(args.out, args.data, args.train_photos)
    photos = held_out(args.eval_data, args.eval_photos)
    curves = {start: [curve(start, seed, args, path, photos) for seed in args.seeds] for start in args.starts}
    write_text(args.out / "curves.json", json.dumps(curves, indent=1) + "\n")
    first = next(iter(curves.values()))[0]
    for name in first[0]["figures"]:
        rows = [
            (start, seed, *("none" if (v := p["figures"][name]) is None else f"{v:.3f}" for p in points))
            for start, seeds in curves.items()
            for seed, points in zip(args.seeds, seeds, strict=True)
        ]
        title = f"{name}, {len(photos)} photos of {args.eval_data}"
        console.print_table(title, ("start", "seed", *(f"step {p['step']}" for p in first)), rows)
        console.echo()
    console.echo(f"({first[0]['protocol']})")
    draw(curves, "AP@0.5 >= 16 px", args)


def draw(curves: dict[str, list[list[dict]]], figure: str, args: argparse.Namespace) -> None:
    """A line for each start, the mean of its seeds, in a band from the least to the most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for start, seeds in curves.items():
        steps = [p["step"] for p in seeds[0]]
        values = [[points[i]["figures"][figure] or 0.0 for points in seeds] for i in range(len(steps))]
        line = axes.plot(steps, [sum(v) / len(v) for v in values], marker="o", markersize=3, label=start)[0]
        axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=line.get_color(), alpha=0.2)
    axes.set(xlabel=f"steps of {args.batch_size} pictures", ylabel=f"{figure}, {args.eval_data}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(title="started from", frameon=False)
    picture.savefig(args.out / "curves.svg")


if __name__ == "__main__":
    main()
