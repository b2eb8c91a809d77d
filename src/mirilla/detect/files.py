"""Detection over photos, folders, videos and a camera: what `mirilla detect` does.

Results are one JSON object for each photo or frame: source, frame (videos), height and width in pixels,
seconds, and detections with label, class, score and box [ymin, xmin, ymax, xmax] normalised to the picture.
With an output folder they stand in its detections.json together with the model and the protocol.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla import console
from mirilla.data.images import EXTENSIONS, decode_rgb
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.errors import DataError, MirillaError, MissingExtraError, UsageError
from mirilla.files import write_text, writing
from mirilla.parallel import in_order

VIDEO_EXTENSIONS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".h264"})
RESULTS = "detections.json"
_Looked = tuple[Detections, dict[str, Any], Any]  # what was found, its entry, and the photo with boxes (or None)


@dataclass(frozen=True)
class Options:
    """What to look at and where results go.

    model: a path that `Detector.load` takes.
    sources: photos, folders, videos, 'camera:0'.
    out: folder for pictures with boxes and detections.json; None for none.
    json_lines: results on standard output, a line each, instead of readable ones.
    threshold: None for the one that the model recommends.
    frames: stop a video or a camera after so many.
    """

    model: str
    sources: tuple[str, ...]
    out: str | None = None
    json_lines: bool = False
    threshold: float | None = None
    frames: int | None = None


def run_on(options: Options) -> int:
    """Detect, print and write.

    Returns:
        How many sources could not be read; they are named on standard error.

    Raises:
        MirillaError: the model cannot be read, nothing was found to look at, or a file cannot be written.
    """
    if options.frames is not None and options.frames < 1:
        raise UsageError(f"--frames {options.frames}: at least one frame is needed.")
    detector = Detector.load(options.model)
    threshold = detector.card.threshold if options.threshold is None else options.threshold
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold}: a score lies between 0 and 1.")
    for note in detector.notes:
        console.warn(note)
    work = _Work(detector, threshold, options)
    photos, moving, broken = _sort_out(options.sources)
    work.failed += broken
    if not photos and not moving and not broken:
        raise DataError(
            "There is no photo and no video in what was given.",
            f"Photos end in {', '.join(sorted(EXTENSIONS))}.",
        )
    try:
        with console.progress("detect", len(photos), "photos") if photos else contextlib.nullcontext() as bar:
            for (photo, name), looked in zip(photos, in_order(work.look_at_file, (p for p, _ in photos)), strict=True):
                work.photo(photo, name, looked)
                if bar is not None:
                    bar.advance()
        for source in moving:
            work.video(source)
    except KeyboardInterrupt:  # the usual end of a camera's picture: what was found is kept
        work.finish()
        raise
    work.finish()
    return work.failed


class _Work:
    """Goes from source to source and keeps the results."""

    def __init__(self, detector: Detector, threshold: float, options: Options):
        self.detector, self.threshold, self.options = detector, threshold, options
        self.out = Path(options.out) if options.out else None
        self.results: list[dict[str, Any]] = []
        self.failed = 0
        self.names: set[str] = set()

    def look_at_file(self, path: Path) -> _Looked | Exception:
        """Decode a photo and look at it; threads do this side by side, ahead of what is reported."""
        try:
            image = decode_rgb(path)
        except (DataError, OSError) as error:
            return error
        found, entry = self.look(image, str(path))
        drawn = self.draw(image, found) if self.out else None
        return found, entry, drawn

    def photo(self, path: Path, name: str, looked: _Looked | Exception) -> None:
        if isinstance(looked, Exception):
            self.failed += 1
            console.warn(str(looked))
            return
        _, entry, drawn = looked
        if self.out:
            target = self.out / self.free_name(Path(name).with_suffix(".jpg"))
            with writing(target) as file:
                drawn.save(file, "JPEG", quality=92)
            entry["picture"] = target.relative_to(self.out).as_posix()
        self.report(entry)

    def video(self, source: str) -> None:
        try:
            with _opened(source) as (frames, rate):
                self.frames(source, frames, rate)
        except (DataError, MissingExtraError) as error:
            self.failed += 1
            console.warn(str(error))

    def frames(self, source: str, frames: Iterator[NDArray[np.uint8]], rate: float) -> None:
        """Every frame of a video, and the video written again with boxes."""
        stem = Path(source.replace(":", "_")).stem
        target = self.out / self.free_name(Path(f"{stem}.mp4")) if self.out else None
        with (
            _VideoWriter(target, rate) as writer,
            console.progress(source, self.options.frames, "frames") as bar,
        ):
            if self.options.frames is not None:
                frames = itertools.islice(frames, self.options.frames)
            # a camera's picture is shown as it comes; a file's frames are looked at side by side
            threads = 1 if source.startswith("camera:") else None
            looked = in_order(lambda image: (image, *self.look(image, source)), frames, threads)
            for number, (image, found, entry) in enumerate(looked):
                entry = {"source": source, "frame": number, **entry}
                if target:
                    writer.write(np.asarray(self.draw(image, found)))
                    entry["picture"] = target.name
                self.report(entry)
                bar.advance()

    def look(self, image: NDArray[np.uint8], source: str) -> tuple[Detections, dict[str, Any]]:
        start = time.perf_counter()
        found = self.detector(image, self.threshold)
        seconds = time.perf_counter() - start
        labels = self.detector.labels
        detections = [
            {
                "label": labels.get(int(kind), f"class {kind}"),
                "class": int(kind),
                "score": round(float(score), 5),
                "box_yxyx": [round(float(edge), 5) for edge in box],
            }
            for box, score, kind in zip(found.boxes_yxyx, found.scores, found.classes, strict=True)
        ]
        return found, {
            "source": source,
            "height_px": image.shape[0],
            "width_px": image.shape[1],
            "seconds": round(seconds, 4),
            "detections": detections,
        }

    def report(self, entry: dict[str, Any]) -> None:
        self.results.append(entry)
        if self.options.json_lines:
            print(json.dumps(entry, ensure_ascii=False), flush=True)
            return
        where = entry["source"] + (f" frame {entry['frame']}" if "frame" in entry else "")
        found = ", ".join(f"{one['label']} {one['score']:.2f}" for one in entry["detections"][:8])
        more = len(entry["detections"]) - 8
        console.echo(f"{where}: {found or 'nothing'}{f' and {more} more' if more > 0 else ''}")

    def draw(self, image: NDArray[np.uint8], found: Detections):
        from mirilla.report.pictures import draw

        return draw(image, found, self.detector.labels)

    def free_name(self, name: Path) -> Path:
        """The name, with a number when another result has it already."""
        candidate, number = name, 1
        while candidate.as_posix().lower() in self.names:
            number += 1
            candidate = name.with_stem(f"{name.stem}_{number}")
        self.names.add(candidate.as_posix().lower())
        return candidate

    def finish(self) -> None:
        if self.out:
            card = self.detector.card
            content = {
                "model": self.detector.source,
                "name": card.name,
                "protocol": self.detector.protocol,
                "threshold": self.threshold,
                "notes": list(self.detector.notes),
                "results": self.results,
            }
            write_text(self.out / RESULTS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        if not self.options.json_lines:
            count = sum(len(one["detections"]) for one in self.results)
            console.echo(
                f"{count} found in {len(self.results)} pictures, scores >= {self.threshold:g}."
                + (f" Results: {self.out}" if self.out else "")
            )
        if self.failed:
            console.warn(f"{self.failed} could not be read; they are named above.")


def _sort_out(sources: Iterable[str]) -> tuple[list[tuple[Path, str]], list[str], int]:
    """Photos with the name of their result, videos and cameras, and how many sources do not exist."""
    photos: list[tuple[Path, str]] = []
    moving: list[str] = []
    broken = 0
    for source in sources:
        path = Path(source)
        if source.startswith("camera:"):
            moving.append(source)
        elif path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file())
            photos += [(one, str(one.relative_to(path))) for one in inside if one.suffix.lower() in EXTENSIONS]
            moving += [str(one) for one in inside if one.suffix.lower() in VIDEO_EXTENSIONS]
        elif not path.exists():
            broken += 1
            console.warn(f"{source}: there is no such photo, folder or video.")
        elif path.suffix.lower() in VIDEO_EXTENSIONS:
            moving.append(source)
        else:
            photos.append((path, path.name))
    return photos, moving, broken


def _cv2():
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "video", "Reading a video or a camera") from None
    return cv2


@contextlib.contextmanager
def _opened(source: str) -> Iterator[tuple[Iterator[NDArray[np.uint8]], float]]:
    """RGB frames of a video file or a camera, and frames per second."""
    cv2 = _cv2()
    camera = source.startswith("camera:")
    if camera and not source[7:].isdigit():
        raise DataError(f"{source}: a camera is named by its number.", "Write camera:0 for the first one.")
    capture = cv2.VideoCapture(int(source[7:]) if camera else os.fspath(source))
    try:
        if not capture.isOpened():
            what = "the camera cannot be opened" if camera else "not a video that can be read"
            raise DataError(
                f"{source}: {what}.",
                "Check that it is plugged in and not used by another program."
                if camera
                else "Replace the file; MP4 (H.264) is read everywhere.",
            )
        rate = capture.get(cv2.CAP_PROP_FPS)
        yield _frames(cv2, capture, source), rate if 0 < rate <= 240 else 25.0
    finally:
        capture.release()


def _frames(cv2: Any, capture: Any, source: str) -> Iterator[NDArray[np.uint8]]:
    first = True
    while True:
        good, frame = capture.read()
        if not good:
            if first:
                raise DataError(f"{source}: not a single frame could be read.", "Replace the file.")
            return
        first = False
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class _VideoWriter:
    """An MP4 written beside and moved into place; a path of None writes nothing."""

    def __init__(self, path: Path | None, rate: float):
        self.path, self.rate = path, rate
        self.part = path.with_name(f".{path.stem}.part.mp4") if path else None
        self.writer: Any = None

    def __enter__(self) -> _VideoWriter:
        return self

    def write(self, rgb: NDArray[np.uint8]) -> None:
        cv2 = _cv2()
        if self.path is None or self.part is None:
            return
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (rgb.shape[1], rgb.shape[0])
            self.writer = cv2.VideoWriter(str(self.part), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, size)
            if not self.writer.isOpened():
                raise MirillaError(
                    f"{self.path}: the video cannot be written.", "Choose another --out, or leave it out."
                )
        self.writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.writer is not None:
            self.writer.release()
        if self.part and self.path and self.part.exists():
            if kind is None or issubclass(kind, KeyboardInterrupt):  # type: ignore[arg-type]
                os.replace(self.part, self.path)
            else:
                self.part.unlink()
