"""The detector against YuNet: from a decoded 640x480 picture to boxes, on one CPU core, batch 1.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.inference MODEL [--rounds 60] [--pictures 8] [--threshold 0.3]

MODEL is what `Detector.load` takes. YuNet (../shared/peers, 320 px) runs in onnxruntime, as in peers.py, and in
OpenCV's FaceDetectorYN, both with their own resize and NMS. This needs onnxruntime and opencv-python-headless; without
them only the numpy engine is measured. All subjects alternate in one process. Printed are milliseconds per picture:
the minimum of all rounds, averaged over the pictures; the median of all rounds and pictures; and the detector's share
of YuNet's time in onnxruntime. Then pictures per second with one thread and with all cores: decoded pictures, and a
folder of JPEGs including decoding. Compiled kernels are used from the beginning. Results: ../README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mirilla import postprocess, resize
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.detect.engine import ENGINES, ONNXRUNTIME, choose
from mirilla.parallel import cores, in_order
from mirilla.targets.target import Codes

SHARED = Path(__file__).resolve().parents[3] / "shared"
Job = Callable[[int], object]


def peers(pictures: list[np.ndarray], threshold: float) -> dict[str, Job]:
    """YuNet in both engines; empty if they are not installed."""
    try:
        import cv2

        sys.path.insert(0, str(SHARED / "peers"))
        from peers import detect  # type: ignore[import-not-found]
    except ImportError:
        return {}
    cv2.setNumThreads(1)
    bgr = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
    jobs: dict[str, Job] = {
        f"YuNet 320, onnxruntime, scores >= {t:g}": lambda i, t=t: detect("yunet_n_320", bgr[i], t)
        for t in (threshold, 0.02)
    }
    yn = cv2.FaceDetectorYN.create(str(SHARED / "peers/yunet_n.onnx"), "", (320, 240), threshold, 0.4, 5000)
    jobs[f"YuNet 320, FaceDetectorYN, scores >= {threshold:g}"] = lambda i: yn.detect(
        cv2.resize(bgr[i], (320, 240), interpolation=cv2.INTER_AREA)
    )
    return jobs


def ours(path: str, pictures: list[np.ndarray], threshold: float) -> dict[str, Job]:
    """The whole detector with each engine, and its stages."""
    detector = Detector.load(path)
    jobs: dict[str, Job] = {
        f"Detector, {choose()}, scores >= {t:g}": lambda i, t=t: detector(pictures[i], t) for t in (threshold, 0.02)
    }
    for name in ENGINES:
        if name != choose() and (name != ONNXRUNTIME):
            other = Detector.load(path, engine=name)
            jobs[f"Detector, {name}, scores >= {threshold:g}"] = lambda i, other=other: other(pictures[i], threshold)
    for _ in range(resize.KERNEL_FROM):
        detector(pictures[0], threshold)
    spec, anchors = detector.card.spec, detector.card.anchors_yxyx
    out = resize.empty(spec.height_px, spec.width_px)
    prepared = [
        resize.to_input(p, spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio) for p in pictures
    ]
    raw = [outputs for pixels, _ in prepared if isinstance(outputs := detector.network(pixels[None]), Codes)]
    jobs["  resize"] = lambda i: resize.to_input(
        pictures[i], spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio, out=out
    )
    jobs["  network"] = lambda i: detector.network(prepared[i][0][None])
    for least in (threshold, 0.02):
        jobs[f"  post-processing, scores >= {least:g}"] = lambda i, least=least: postprocess.detections(
            raw[i].codes[0], raw[i].logits[0], anchors, spec, prepared[i][1], least
        )
    return jobs


def measure(jobs: dict[str, Job], count: int, rounds: int) -> None:
    taken = {name: np.zeros((rounds, count, 2)) for name in jobs}
    for job in jobs.values():
        job(0)
    for number in range(rounds):
        for name, job in jobs.items():
            for i in range(count):
                wall, cpu = time.perf_counter(), time.process_time()
                job(i)
                taken[name][number, i] = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{'ms per picture':48s} {'CPU min':>10s} {'CPU median':>11s} {'wall min':>11s} {'wall median':>12s}")
    for name, values in taken.items():
        wall, cpu = values[..., 0] * 1e3, values[..., 1] * 1e3
        print(
            f"{name:48s} {cpu.min(0).mean():10.3f} {np.median(cpu):11.3f} {wall.min(0).mean():11.3f} "
            f"{np.median(wall):12.3f}"
        )
    least = {name: values[..., 1].min(0).mean() for name, values in taken.items()}
    for name, value in least.items():
        end = name.removeprefix(f"Detector, {choose()}")
        peer = f"YuNet 320, {ONNXRUNTIME}{end}"
        if end != name and peer in least:
            print(f"Detector, {choose()}{end}: {value / least[peer]:.3f} of YuNet's CPU time in {ONNXRUNTIME}")


def stream(path: str, pictures: list[np.ndarray], threshold: float) -> None:
    """Decoded pictures, as in `Detector.stream`."""
    detector = Detector.load(path)
    many = pictures * (400 // len(pictures))
    for threads in (1, cores()):
        best = 0.0
        for _ in range(5):
            wall = time.perf_counter()
            count = sum(1 for _ in in_order(lambda picture: detector(picture, threshold), many, threads))
            best = max(best, count / (time.perf_counter() - wall))
        print(f"decoded pictures, {threads} threads: {best:.0f} pictures/s")


def folder(path: str, files: list[Path], threshold: float) -> None:
    """Decode and detect, as `mirilla detect` on a folder."""
    detector = Detector.load(path)
    for threads in (1, cores(), 1, cores()):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(1 for _ in in_order(lambda file: detector(decode_rgb(file), threshold), files, threads))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"folder of JPEGs, {threads} threads: {count / wall:.0f} pictures/s, {count / cpu:.0f} per CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.3)
    args = parser.parse_args()
    files = sorted((SHARED / "data/faces/ilc2021/images").glob("*.jpg"))
    if not files:
        sys.exit("the folder ../shared with the photos and the peers is missing")
    chosen = files[:: len(files) // args.pictures][: args.pictures]
    pictures = [np.asarray(Image.fromarray(decode_rgb(file)).resize((640, 480))) for file in chosen]
    subjects = {**ours(args.model, pictures, args.threshold), **peers(pictures, args.threshold)}
    measure(subjects, len(pictures), args.rounds)
    stream(args.model, pictures, args.threshold)
    folder(args.model, files[:400], args.threshold)


if __name__ == "__main__":
    main()
