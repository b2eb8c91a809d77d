"""Ablation of the recipe: one short training per variant and seed.

    python -m benchmarks.accuracy.ablation --list
    python -m benchmarks.accuracy.ablation --out DIR --steps 3000 --seeds 0 1 2 [--only NAME ...] [--jobs 2]
    python -m benchmarks.accuracy.page --ablation DIR/ablation.jsonl

Every run is a separate `mirilla train` with one thread, on the same records. It is measured at its end, letterboxed and
squashed, in float, with the protocol of measure.py. DIR/ablation.jsonl gets a line per run. Runs that are already there
(same pipeline, seed and steps) are skipped, and interrupted runs are resumed. The cost is CPU time of the training
alone. Add a variant as an overlay in the text form of pipeline.config:

    --overlay "rate 0.004=train_config { optimizer { adam_optimizer { ... } } }"

Short runs favour what learns fast; the ranking after 3,000 steps may differ from that after 40,000.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: measure one core

# ruff: noqa: E402
from benchmarks.accuracy import page, variants
from benchmarks.accuracy.seeds import RESIZES
from benchmarks.common import LABELS, SIZES, held_out, records

from mirilla import config, console
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import MirillaError
from mirilla.evaluation.faces import Faces
from mirilla.evaluation.interface import ground_truths_of
from mirilla.files import write_text

LINES = "ablation.jsonl"


def train(pipeline: config.Pipeline, folder: Path, cache: Path, device: str | None) -> float:
    """Run `mirilla train` in a separate process with one thread; return its total CPU time.

    Raises:
        RuntimeError: training failed; the end of its output is in the message, all of it in train.log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    if not (folder / "cache").exists():  # all runs share the decoded photos
        (folder / "cache").symlink_to(cache.resolve(), target_is_directory=True)
    asked, spent = folder / "asked.config", folder / "cpu_s.json"
    before = json.loads(spent.read_text()) if spent.is_file() else 0.0
    config.save(asked, pipeline)
    command = [
        sys.executable,
        "-m",
        "mirilla.cli.main",
        "train",
        "--pipeline-config",
        str(asked),
        "--model-dir",
        str(folder),
    ]
    command += ["--device", device] if device else []
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with open(folder / "train.log", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | threads)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    total = before + usage.ru_utime + usage.ru_stime
    write_text(spent, json.dumps(total))
    if process.returncode:
        last = (folder / "train.log").read_text()[-600:]
        raise RuntimeError(f"{folder.name}: mirilla train ended with {process.returncode}: {last}")
    return total


def measure(folder: Path, photos: Sequence[Any]) -> tuple[dict[str, dict[str, float]], str]:
    """Metrics of a training folder, {resize: {size: AP}}, and their protocol."""
    detector = Detector.load(folder)
    truths = ground_truths_of(photos, LABELS, one_class=True)
    figures, protocol = {}, ""
    for resize in RESIZES:
        spec = replace(detector.card.spec, keep_aspect_ratio=resize == "letterbox")
        resized = replace(detector, card=replace(detector.card, spec=spec))
        result = Faces().evaluate(truths, [resized(decode_rgb(sample.image)) for sample in photos])
        figures[resize] = {size: f.value for size, f in zip(SIZES, result.figures, strict=False)}
        protocol = protocol or result.with_protocol({"run": resized.protocol}).protocol_text
    return figures, protocol


def run(
    variant: variants.Variant, seed: int, pipeline: config.Pipeline, args: argparse.Namespace, photos: Sequence[Any]
) -> dict[str, Any]:
    """Train and measure one variant with one seed; return its line."""
    folder = args.out / "runs" / f"{_safe(variant.name)}-{seed}-{key_of(pipeline)[:8]}"
    cpu_s = train(pipeline, folder, args.out / "cache", args.device)
    figures, protocol = measure(folder, photos)
    if not args.keep:
        for old in sorted(folder.glob("model.ckpt-*"), key=lambda p: p.stat().st_mtime)[:-1]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    return {
        "variant": variant.name,
        "seed": seed,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "pictures": args.steps * args.batch_size,
        "size_px": args.size,
        "key": key_of(pipeline),
        "figures": figures,
        "cpu_s": round(cpu_s, 1),
        "photos": len(photos),
        "eval": args.eval_data,
        "train": args.data,
        "protocol": protocol,
    }


def key_of(pipeline: config.Pipeline) -> str:
    """A key for a pipeline that ignores the paths of its files."""
    plain = config.Pipeline()
    plain.CopyFrom(pipeline)
    for part in ("train_input_reader", "eval_input_reader"):
        plain.ClearField(part)
    if plain.train_config.fine_tune_checkpoint:
        plain.train_config.fine_tune_checkpoint = Path(plain.train_config.fine_tune_checkpoint).name
    if plain.mirilla.distillation.teacher:
        plain.mirilla.distillation.teacher = Path(plain.mirilla.distillation.teacher).name
    return hashlib.sha256(config.dump(plain).encode()).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("ablation"), metavar="DIR")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the input (default: 256)")
    parser.add_argument("--model", default="kit", help="model of the zoo for the base (default: kit)")
    parser.add_argument(
        "--start", choices=("initial", "imagenet"), default="imagenet", help="first weights of the base"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these variants (default: all)")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--overlay", nargs="+", default=[], metavar="NAME=TEXT", help="additional variants of the base")
    parser.add_argument("--data", nargs="+", default=["ilc2021", "roboflow_gray"], help="training sets")
    parser.add_argument("--eval-data", default="ilc2021")
    parser.add_argument("--train-photos", type=int, help="use only the first N photos, for a trial")
    parser.add_argument("--eval-photos", type=int, help="use only the first N photos, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, one core each")
    parser.add_argument("--device")
    parser.add_argument("--keep", action="store_true", help="keep all checkpoints, not only the last")
    parser.add_argument("--list", action="store_true", help="list the variants and exit")
    args = parser.parse_args()

    path = records(args.out, args.data, args.train_photos) if not args.list else args.out / "train.tfrecord"
    start = str(variants.IMAGENET) if args.start == "imagenet" else ""
    base = variants.Variant("base", model=args.model, start=start)
    ours = variants.pipeline(replace(base, fitted=False), path, args.steps, args.batch_size, 0, size_px=args.size)
    known = variants.variants(base, ours)
    known |= {
        name: replace(base, name=name, overlay=text) for name, _, text in (o.partition("=") for o in args.overlay)
    }
    if args.list:
        for name in known:
            console.echo(name)
        return
    wanted = args.only or list(known)
    if unknown := [name for name in (*wanted, *args.skip) if name not in known]:
        sys.exit(f"no such variant: {', '.join(unknown)}; --list names them")
    photos = held_out(args.eval_data, args.eval_photos)
    lines = args.out / LINES
    done = {(line["variant"], line["seed"], line["key"]): line for line in read_lines(lines)}
    tasks, current = [], set()
    for seed in args.seeds:  # seed by seed, so that an interrupted run has all variants
        for name in wanted:
            if name in args.skip:
                continue
            pipeline = variants.pipeline(known[name], path, args.steps, args.batch_size, seed, size_px=args.size)
            current.add((name, seed, key_of(pipeline)))
            if (name, seed, key_of(pipeline)) not in done:
                tasks.append((known[name], seed, pipeline))
    console.echo(f"{len(tasks)} runs to do, {len(current) - len(tasks)} done before")

    def task(item: tuple[variants.Variant, int, config.Pipeline]) -> None:
        variant, seed, pipeline = item
        try:
            line = run(variant, seed, pipeline, args, photos)
        except (RuntimeError, MirillaError) as error:  # continue with the others
            console.warn(f"{variant.name}, seed {seed}: {error}")
            return
        with open(lines, "a") as file:
            file.write(json.dumps(line) + "\n")
        figures = " / ".join(f"{resize} {line['figures'][resize][SIZES[1]]:.3f}" for resize in RESIZES)
        console.echo(f"{variant.name}, seed {seed}: {SIZES[1]} {figures}, {line['cpu_s']:.0f} CPU s")

    for item in tasks[:1]:  # alone, because it decodes the photos for all
        task(item)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(task, tasks[1:]))
    shown = [line for line in read_lines(lines) if (line["variant"], line["seed"], line["key"]) in current]
    if shown:
        console.echo(page.ablation_table(shown))


if __name__ == "__main__":
    main()
