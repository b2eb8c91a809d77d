"""mirilla detect: find objects in photos, folders, videos or a camera's picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

NAME = "detect"
HELP = "find objects in photos, folders, videos or a camera's picture"
MODELS = (".pb", ".binaryproto")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "mirilla detect [MODEL] PHOTO [PHOTO ...] [options]"
    parser.add_argument(
        "model_and_photos",
        metavar="[MODEL] PHOTO",
        nargs="+",
        help="photos, folders (searched deeply), video files, or camera:0. The first may be a model instead: "
        "a frozen graph (.pb), a compiled model (.binaryproto), a folder with one of them, or a training "
        "folder. Without one, the face detector that ships with Mirilla is used",
    )
    parser.add_argument("--model", metavar="MODEL", help="the model; then everything else is a photo")
    parser.add_argument("--out", metavar="DIR", help="write the photos with boxes drawn, and detections.json, here")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a line on standard output, one for each photo or video frame",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="report scores from T on (default: what the model's model.json recommends)",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="stop a video or a camera after N frames")


def run(args: argparse.Namespace) -> int:
    from mirilla import console, shipped
    from mirilla.detect.files import Options, detect_files

    model, photos = model_and_photos(args.model, args.model_and_photos)
    if model is None:
        model = str(shipped.default_model())
        if not args.json:
            console.echo("Model: the face detector that ships with Mirilla (--model names another).")
    options = Options(
        model=model,
        sources=photos,
        out=args.out,
        json_lines=args.json,
        threshold=args.threshold,
        frames=args.frames,
    )
    return 1 if detect_files(options) else 0


def model_and_photos(model: str | None, words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Which words name a model and which what it shall look at; None for the shipped model.

    With --model all words are photos. Else the first is a model if it is a file that ends in .pb or
    .binaryproto, a folder that holds one or a pipeline.config, or something else that cannot be a photo: neither
    a file that exists, nor a folder with photos or videos, nor a name that ends as theirs or begins 'camera:'.

    Raises:
        UsageError: there is a model but no photo.
    """
    from mirilla.errors import UsageError

    if model is None and _is_model(words[0]):
        model, words = words[0], words[1:]
    if not words:
        raise UsageError(
            f"{model}: this is a model; there is no photo to look at.",
            f"Name photos, folders or videos after it: mirilla detect {model} PHOTO",
        )
    return model, tuple(words)


def _is_model(word: str) -> bool:
    from mirilla.data.images import EXTENSIONS
    from mirilla.detect import video
    from mirilla.weights.read import PIPELINE

    path, seen = Path(word), EXTENSIONS | video.EXTENSIONS
    if path.suffix.lower() in MODELS:
        return True
    if path.is_dir():
        if (path / PIPELINE).is_file():
            return True
        if any(one.suffix.lower() in MODELS for one in path.iterdir()):
            return True
        return not any(one.suffix.lower() in seen for one in path.rglob("*"))
    return not (path.exists() or path.suffix.lower() in seen or word.startswith("camera:"))
