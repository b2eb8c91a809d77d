"""Speed of `mirilla data` on a set of WIDER FACE's size: conversion beside plain copies, check beside decoding.

    python -m benchmarks.speed.data_speed --work DIR [--pictures 12880] [--gigabytes 1.5] [--only convert|check]

The photos of ../shared are repeated in DIR in WIDER's layout, as hard links to one copy each (5 GB for the full size;
removed at the end). Zeros after the end of each JPEG give it about WIDER's mean size. Every result has wall and CPU
seconds (child processes included). Results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mirilla.data import read_dataset
from mirilla.data.check import check
from mirilla.data.convert import convert
from mirilla.data.images import decode_rgb
from mirilla.parallel import cores, in_order

WIDER_MEAN_BYTES = 1.5e9 / 12880
SHARED = Path(__file__).resolve().parents[3] / "shared"


def make(folder: Path, count: int, size_bytes: int) -> int:
    """Make the data set; return its size in bytes."""
    source = SHARED / "data/faces/ilc2021"
    lines = (source / "bbx_gt.txt").read_text().splitlines()
    faces, at = [], 0
    while at < len(lines):
        rows = max(1, int(lines[at + 1]))
        faces.append((lines[at], lines[at + 1 : at + 2 + rows]))
        at += 2 + rows
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for name, _ in faces:
        content = (source / "images" / name).read_bytes()
        (originals / name).write_bytes(content + bytes(max(0, size_bytes // count - len(content))))
    pictures = folder / "wider/WIDER_train/images"
    text = []
    for i in range(count):
        name, rows = faces[i % len(faces)]
        new = f"{i % 61}--Event/{i}_{name}"
        target = pictures / new
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals / name, target)
        text += [new, *rows]
    split = folder / "wider/wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text("\n".join(text) + "\n")
    return sum(os.path.getsize(path) for path in pictures.rglob("*.jpg"))


def measure(name: str, count: int, size: int, work: Callable[[], object]) -> None:
    wall, before = time.perf_counter(), os.times()
    work()
    wall, after = time.perf_counter() - wall, os.times()
    user, system, children_user, children_system = (b - a for a, b in zip(before[:4], after[:4], strict=True))
    cpu = user + system + children_user + children_system
    print(
        f"{name:28s} {wall:7.2f} s wall {cpu:7.2f} s CPU ({system + children_system:.2f} system)  "
        f"{count / wall:7.0f} pictures/s  {count / cpu:7.0f} per CPU second  {size / wall / 1e6:6.0f} MB/s",
        flush=True,
    )


def one_file(files: list[Path], target: Path) -> None:
    """Copy the same bytes into one file with the system's copy call, and flush it to the disk."""
    with open(target, "wb") as out:
        for file in files:
            with open(file, "rb") as content:
                shutil.copyfileobj(content, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())


def many_files(files: list[Path], target: Path) -> None:
    """Copy file by file, as `cp -r` does."""
    target.mkdir()
    for number, file in enumerate(files):
        shutil.copyfile(file, target / f"{number}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12880)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--only", choices=("convert", "check"))
    args = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit("the folder ../shared with the photos is missing")
    args.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="data-speed-", dir=args.work))
    try:
        if shutil.disk_usage(folder).free < 4e9 * args.gigabytes:
            sys.exit(f"{args.work}: {4 * args.gigabytes:.0f} GB are needed")
        size = make(folder, args.pictures, int(args.gigabytes * 1e9))
        files = sorted((folder / "wider").rglob("*.jpg"))
        count = len(files)
        print(f"{count} pictures, {size / 1e9:.2f} GB, {cores()} cores")
        data = read_dataset(folder / "wider")
        measure("read_dataset", count, size, lambda: read_dataset(folder / "wider"))
        if args.only != "check":
            measure("copy into one file", count, size, lambda: one_file(files, folder / "bytes"))
            (folder / "bytes").unlink()
            measure("convert to tfrecord", count, size, lambda: convert(data, folder / "made", "tfrecord"))
            shutil.rmtree(folder / "made")
            measure("copy file by file", count, size, lambda: many_files(files, folder / "copies"))
            shutil.rmtree(folder / "copies")
            for target in ("voc", "csv"):
                measure(f"convert to {target}", count, size, lambda t=target: convert(data, folder / "made", t))
                shutil.rmtree(folder / "made")
        if args.only != "convert":
            measure("decode all", count, size, lambda: sum(1 for _ in in_order(decode_rgb, files)))
            measure("check", count, size, lambda: check(data))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
