"""`mirilla detect`: detect objects in photos, folders, videos or a camera's frames."""

from __future__ import annotations

import argparse
import contextlib
import glob
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "mirilla detect [MODEL] PHOTO [PHOTO ...] [options]"
    parser.add_argument(
        "model_and_photos",
        metavar="[MODEL] PHOTO",
        nargs="+",
        help="photos, folders (searched recursively), patterns ('photos/*.jpg'), lists (.txt), video files, "
        "cameras (0, webcam) or streams (rtsp://...). The first may be a model instead: a frozen graph (.pb), a "
        "compiled model (.binaryproto), a file of 'mirilla export --to', a folder with one of them, or a training "
        "folder (default: the face detector that ships with Mirilla)",
    )
    parser.add_argument("--model", metavar="MODEL", help="the model; all positional arguments are photos then")
    parser.add_argument(
        "--out", metavar="DIR", help="write the photos with boxes drawn and detections.json to this folder"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line with a JSON object for each photo or video frame",
    )
    parser.add_argument(
        "--threshold",
        "--conf",
        type=float,
        metavar="T",
        help="minimum score (default: the recommendation in the model's model.json)",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="names of a classifier's classes, one a line (default: those of its model.json)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print a line for each frame of a video")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames of a video or camera")


def run(args: argparse.Namespace) -> int:
    from mirilla import console, shipped
    from mirilla.detect.files import Options, detect_files
    from mirilla.errors import UsageError

    model, photos = model_and_photos(args.model, args.model_and_photos)
    if model is None:
        model = str(shipped.default_model())
        if not args.json:
            console.echo("Model: the face detector that ships with Mirilla (choose another with --model).")
    from mirilla.detect.classifier import try_load

    if (classifier := try_load(Path(model), args.labels)) is not None:
        from mirilla.detect.classify_files import classify_files

        if args.out is not None:
            raise UsageError("--out draws boxes, and a classifier has none.", "Use --json to keep its results.")
        failed = classify_files(classifier, photos, json_lines=args.json, threshold=args.threshold)
        return 1 if failed else 0
    if args.labels is not None:
        raise UsageError(f"--labels: {model} is not a classifier; a detector's labels are in its model.json.")
    options = Options(
        model=model,
        sources=photos,
        out=args.out,
        json_lines=args.json,
        threshold=args.threshold,
        frames=args.frames,
        verbose=args.verbose,
    )
    return 1 if detect_files(options) else 0


def model_and_photos(model: str | None, words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The model and the photos that the positional arguments name; None for the shipped model.

    With --model all arguments are photos. Without it, the first argument is the model if it has the suffix of one, is a
    folder that contains such a file or a pipeline.config, or cannot be a photo: it is neither an existing file, nor a
    folder with photos or videos, nor a name with their suffix or the prefix 'camera:'.

    Raises:
        UsageError: a model but no photo is given.
    """
    from mirilla.errors import UsageError

    if model is None and _is_model(words[0]):
        model, words = words[0], words[1:]
    if not words:
        raise UsageError(
            f"{model}: this is a model; no photo is given.",
            f"Add photos, folders or videos: mirilla detect {model} PHOTO",
        )
    return model, tuple(words)


def _is_model(word: str) -> bool:
    from mirilla.data.images import EXTENSIONS
    from mirilla.detect import video
    from mirilla.detect.models import MODEL_PATTERNS, MODEL_SUFFIXES
    from mirilla.weights.training_folder import PIPELINE

    path, photo_suffixes = Path(word), EXTENSIONS | video.EXTENSIONS
    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    if path.is_dir():
        if (path / PIPELINE).is_file():
            return True
        with contextlib.suppress(OSError):  # a folder that cannot be read is reported later
            if any(file.match(pattern) for file in path.iterdir() for pattern in MODEL_PATTERNS):
                return True
        return not any(file.suffix.lower() in photo_suffixes for file in path.rglob("*"))
    is_live = video.live_source(word) is not None
    return not (path.exists() or is_live or path.suffix.lower() in photo_suffixes or glob.has_magic(word))
