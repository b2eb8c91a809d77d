"""Train every model of the zoo with the same photos, recipe, length and seed.

    python -m benchmarks.accuracy.zoo --out DIR [--steps 3000] [--only NAME ...] [--jobs 1]
    python -m benchmarks.accuracy.measure kit=DIR/kit ... --sets ilc2021 --out DIR/accuracy
    python -m benchmarks.accuracy.page --zoo DIR/accuracy/accuracy.json
    python -m benchmarks.accuracy.pareto DIR/accuracy/accuracy.json

Each training is a separate `mirilla train` with one thread and `mirilla run`'s default recipe. It starts from ImageNet
weights of a base network at width 0.25: sliced for narrower models, padded with unused channels for wider ones.
Interrupted runs are resumed; exported models are skipped. The CPU time is in each model.json under `training`.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: measure one core

# ruff: noqa: E402
from benchmarks.accuracy import ablation, variants
from benchmarks.common import LABELS, SETS, records

from mirilla import console
from mirilla.config import zoo
from mirilla.weights.export import export_model
from mirilla.weights.training_folder import load_training_folder


def run(name: str, path: Path, args: argparse.Namespace) -> None:
    """Train and export one model."""
    variant = variants.Variant("zoo", model=name, start=str(variants.IMAGENET))
    pipeline = variants.pipeline(variant, path, args.steps, args.batch_size, args.seed)
    folder = args.out / "runs" / f"{name}-{args.seed}-{ablation.key_of(pipeline)[:8]}"
    cpu_s = ablation.train(pipeline, folder, args.out / "cache", None)
    spec, _, found = load_training_folder(folder, None)
    training = {
        "steps": found.step,
        "batch_size": args.batch_size,
        "pictures": found.step * args.batch_size,
        "seed": args.seed,
        "cpu_s": round(cpu_s),
    }
    export_model(spec, found.variables, LABELS, args.out / name, pipeline=pipeline, training=training, name=name)
    console.echo(f"{name}: {cpu_s:.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("zoo"), metavar="DIR")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(zoo.names()), metavar="NAME", choices=zoo.names())
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, one core each")
    args = parser.parse_args()
    path = records(args.out, SETS)
    wanted = [name for name in args.only if not (args.out / name / "model.json").is_file()]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda name: run(name, path, args), wanted))
    models = " ".join(f"{name}={args.out / name}" for name in zoo.names() if (args.out / name / "model.json").is_file())
    out = args.out / "accuracy"
    console.echo(f"Measure them: python -m benchmarks.accuracy.measure {models} --sets ilc2021 --out {out}")


if __name__ == "__main__":
    main()
