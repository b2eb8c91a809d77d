"""Detection in photos, folders, videos and a camera's picture: what `mirilla detect` does.

The result is one JSON object per photo or frame: source, frame (videos only), height and width in pixels,
seconds, and detections with label, class, score and box [ymin, xmin, ymax, xmax] normalised to the picture.
With an output folder the results are also written to its detections.json, with the model and the protocol.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirilla import console
from mirilla.data.images import EXTENSIONS
from mirilla.detect import video
from mirilla.detect.detector import Detector
from mirilla.detect.sources import Photo, Sources, decoded, find_sources
from mirilla.detections import Detections
from mirilla.errors import DataError, MissingExtraError, UsageError
from mirilla.files import writing
from mirilla.parallel import in_order

RESULTS = "detections.json"
JPEG_QUALITY = 92
_SHOWN = 8  # detections on a line


@dataclass(frozen=True)
class Options:
    """Where to detect, and where the results go.

    model: a path that `Detector.load` takes.
    sources: what `find_sources` takes: photos, folders, patterns, lists, videos, cameras, addresses, '-'.
    out: folder for pictures with boxes and detections.json; None writes no files.
    json_lines: print results as JSON, one object per line, instead of readable lines.
    threshold: the lowest score that is reported; None for the one that the model recommends.
    frames: stop each video or camera after this many.
    verbose: print a line for each frame of a video, not only a summary.
    """

    model: str
    sources: tuple[str, ...]
    out: str | None = None
    json_lines: bool = False
    threshold: float | None = None
    frames: int | None = None
    verbose: bool = False


@dataclass(frozen=True)
class Result:
    """The detections in one photo or frame.

    source: the file or camera.
    size_px: (height, width).
    seconds: the time that detection took.
    frame: its number in a video, from 0.
    picture: file with the boxes drawn, relative to the output folder.
    """

    source: str
    size_px: tuple[int, int]
    seconds: float
    detections: Detections
    frame: int | None = None
    picture: str | None = None

    def to_json(self, labels: dict[int, str]) -> dict[str, object]:
        result: dict[str, object] = {"source": self.source}
        if self.frame is not None:
            result["frame"] = self.frame
        found = self.detections
        result |= {
            "height_px": self.size_px[0],
            "width_px": self.size_px[1],
            "seconds": round(self.seconds, 4),
            "detections": [
                {
                    "label": labels.get(int(class_id), f"class {class_id}"),
                    "class": int(class_id),
                    "score": round(float(score), 5),
                    "box_yxyx": [round(float(edge), 5) for edge in box],
                }
                for box, score, class_id in zip(found.boxes_yxyx, found.scores, found.classes, strict=True)
            ],
        }
        return result if self.picture is None else {**result, "picture": self.picture}

    def to_line(self, labels: dict[int, str]) -> str:
        found = self.detections
        texts = [
            f"{labels.get(int(class_id), f'class {class_id}')} {score:.2f}"
            for class_id, score in zip(found.classes[:_SHOWN], found.scores[:_SHOWN], strict=True)
        ]
        where = self.source if self.frame is None else f"{self.source} frame {self.frame}"
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"{where}: {', '.join(texts) or 'nothing'}{more}"


def detect_files(options: Options) -> int:
    """Detect, print and write.

    Returns:
        How many sources could not be read; standard error names them.

    Raises:
        MirillaError: the model cannot be read, there is no photo or video, or a file cannot be written.
    """
    if options.frames is not None and options.frames < 1:
        raise UsageError(f"--frames {options.frames}: must be at least 1.")
    detector = Detector.load(options.model)
    threshold = detector.card.threshold if options.threshold is None else options.threshold
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold}: must be between 0 and 1.")
    for note in detector.notes:
        console.warn(note)
    sources = find_sources(options.sources)
    if not (sources.photos or sources.videos or sources.missing):
        raise DataError("No photo and no video found.", f"Photos end in {', '.join(sorted(EXTENSIONS))}.")
    if options.out is not None:
        _require_free(Path(options.out), sources)
    run = _Run(detector, threshold, options)
    for reason in sources.missing:
        run.fail(reason)
    try:
        run.photos(sources.photos)
        for source in sources.videos:
            run.video(source)
    except KeyboardInterrupt:  # the usual end of a camera's video: the results so far are kept
        run.finish()
        raise
    run.finish()
    return run.failed


def _require_free(out: Path, sources: Sources) -> None:
    """Refuse an output folder in which a result would replace a file that an earlier `mirilla detect` did not write.

    Raises:
        UsageError: there is such a file, or `out` is a file or has a picture's name.
    """
    if out.suffix.lower() in EXTENSIONS | video.EXTENSIONS or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {out}: this is a file's name.", "Name a folder.")
    names = [Path(photo.name).with_suffix(".jpg") for photo in sources.photos]
    names += [_video_name(source) for source in sources.videos]
    own = _earlier_results(out)
    for name in (*names, Path(RESULTS)):
        if (out / name).exists() and name.as_posix() not in own:
            raise UsageError(
                f"--out {out}: {name} is there already, and 'mirilla detect' did not write it.",
                "Name another folder, for example --out detections.",
            )


def _earlier_results(out: Path) -> set[str]:
    """Names of the files that an earlier `mirilla detect` wrote to a folder, by its detections.json."""
    try:
        content = json.loads((out / RESULTS).read_bytes())
        results = content["results"] if {"model", "protocol"} <= content.keys() else []
        return {RESULTS, *(str(result["picture"]) for result in results if "picture" in result)} if results else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _video_name(source: str) -> Path:
    """The name of a video's, camera's or stream's result."""
    name = video.without_password(source).partition("?")[0].rstrip("/").replace(":", "_")
    return Path(f"{Path(name).stem}{video.suffix()}")


class _Run:
    """Detects in one source after the other, reports, and keeps the results."""

    def __init__(self, detector: Detector, threshold: float, options: Options):
        self.detector, self.threshold, self.options = detector, threshold, options
        self.labels = dict(detector.labels)
        self.out = Path(options.out) if options.out else None
        # a camera may run for days, so results are kept on disk, and only if they are to be written
        self.results = tempfile.TemporaryFile("w+", encoding="utf-8") if self.out else None  # noqa: SIM115 (see finish)
        self.count = self.pictures = self.failed = 0
        self.taken: set[str] = set()  # names of written pictures, in lower case

    def photos(self, photos: list[Photo]) -> None:
        """Detect in photos; threads work ahead of the one that is reported."""
        if not photos:
            return
        with console.progress("detect", len(photos), "photos") as bar:
            outcomes = in_order(self._detect_in_file, photos)
            for photo, outcome in zip(photos, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self.fail(str(outcome))
                else:
                    self._report(*outcome, photo.name)
                bar.advance()

    def video(self, source: str) -> None:
        """Detect in every frame; with an output folder, write the video with boxes."""
        shown = video.without_password(source)
        target = self._free_path(_video_name(source)) if self.out else None
        # a camera is shown live; a file's frames are processed in parallel
        threads = 1 if video.live_source(source) is not None else None
        pictures, count, start = self.pictures, self.count, time.perf_counter()
        try:
            with (
                video.opened(source) as (frames, rate),
                video.VideoWriter(target, rate) as writer,
                console.progress(shown, self.options.frames, "frames") as bar,
            ):
                frames = itertools.islice(frames, self.options.frames)
                results = in_order(lambda frame: (frame, self._detect(frame, shown)), frames, threads)
                for number, (frame, result) in enumerate(results):
                    name = None
                    if target is not None:
                        writer.write(np.asarray(self._draw(frame, result.detections)))
                        name = target.name
                    self._keep(replace(result, frame=number, picture=name), quiet=not self.options.verbose)
                    bar.advance()
        except (DataError, MissingExtraError) as error:
            self.fail(str(error))
        finally:
            frames_done, seconds = self.pictures - pictures, time.perf_counter() - start
            if frames_done and not self.options.json_lines:
                rate = f"{frames_done / seconds:.1f} frames/s"
                console.echo(f"{shown}: {self.count - count} found in {frames_done} frames, {rate}")

    def fail(self, message: str) -> None:
        """Report a source that cannot be read."""
        self.failed += 1
        console.warn(message)

    def finish(self) -> None:
        """Write detections.json and print the totals."""
        if self.out:
            self._write_results(self.out / RESULTS)
        if not self.options.json_lines:
            total = f"{self.count} found in {self.pictures} pictures, scores >= {self.threshold:g}."
            console.echo(total + (f" Results: {self.out}" if self.out else ""))
        if self.failed:
            console.warn(f"{self.failed} could not be read; see above.")

    def _write_results(self, path: Path) -> None:
        head = {
            "model": self.detector.source,
            "name": self.detector.card.name,
            "protocol": self.detector.protocol,
            "threshold": self.threshold,
            "notes": list(self.detector.notes),
        }
        assert self.results is not None
        self.results.seek(0)
        with writing(path, "w") as file, self.results as lines:
            file.write(json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + ',\n "results": [')
            for number, line in enumerate(lines):
                file.write(("," if number else "") + "\n  " + line.rstrip("\n"))
            file.write("\n ]\n}\n")

    def _detect_in_file(self, photo: Photo) -> tuple[Result, Image.Image | None] | Exception:
        """Decode a photo and detect; with an output folder, also draw the boxes."""
        try:
            image = decoded(photo)
        except (DataError, OSError) as error:
            return error
        result = self._detect(image, photo.source)
        return result, self._draw(image, result.detections) if self.out else None

    def _detect(self, image: NDArray[np.uint8], source: str) -> Result:
        start = time.perf_counter()
        detections = self.detector(image, self.threshold)
        return Result(source, image.shape[:2], time.perf_counter() - start, detections)

    def _draw(self, image: NDArray[np.uint8], detections: Detections) -> Image.Image:
        from mirilla.report.pictures import draw

        return draw(image, detections, self.labels)

    def _report(self, result: Result, drawn: Image.Image | None, name: str) -> None:
        target = self._free_path(Path(name).with_suffix(".jpg"))
        if drawn is not None and target is not None and self.out is not None:
            with writing(target) as file:
                drawn.save(file, "JPEG", quality=JPEG_QUALITY)
            result = replace(result, picture=target.relative_to(self.out).as_posix())
        self._keep(result)

    def _keep(self, result: Result, quiet: bool = False) -> None:
        """Print a result, unless `quiet`, and keep its JSON for detections.json."""
        text = json.dumps(result.to_json(self.labels), ensure_ascii=False)
        if self.results is not None:
            self.results.write(text + "\n")
        self.pictures += 1
        self.count += len(result.detections)
        if self.options.json_lines:
            print(text, flush=True)
        elif not quiet:
            console.echo(result.to_line(self.labels))

    def _free_path(self, name: Path) -> Path | None:
        """Where to write a picture: the name gets a number if another result has it; None without a folder."""
        if self.out is None:
            return None
        candidate, number = name, 1
        while candidate.as_posix().lower() in self.taken:
            number += 1
            candidate = name.with_stem(f"{name.stem}_{number}")
        self.taken.add(candidate.as_posix().lower())
        return self.out / candidate
