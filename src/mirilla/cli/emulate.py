"""`mirilla emulate`: a Vision Bonnet on this machine, for the kit's own client."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from mirilla.cli.arguments import size

if TYPE_CHECKING:
    from mirilla.emulator.models import LoadedModel
    from mirilla.emulator.server import Server

MAX_PORT, MAX_FPS = 65535, 1000

EXAMPLE = """example:
  mirilla emulate face.binaryproto --frames photos
  VISION_BONNET_HOST=127.0.0.1 VISION_BONNET_PORT=35000 python my_kit_program.py

The model is loaded under its file's name without the suffix, as if a client had loaded it; clients can load more
models. docs/emulator.md explains how to install and use the kit's client."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a model to load at the start, which is compiled if it is not yet; clients can load more",
    )
    parser.add_argument("--name", help="name of MODEL for clients (default: its file name without the suffix)")
    parser.add_argument(
        "--mean",
        type=float,
        default=128.0,
        metavar="M",
        help="normalisation for MODEL: (pixel - M) / S (default: 128)",
    )
    parser.add_argument("--stddev", type=float, default=128.0, metavar="S", help="see --mean (default: 128)")
    parser.add_argument(
        "--input-size",
        type=size,
        metavar="N|HxW",
        help="input size of MODEL, if neither the file nor its model.json contains it",
    )
    parser.add_argument("--port", type=int, default=35000, help="port; 0 chooses a free one (default: 35000)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, for this machine only; the protocol has no password)",
    )
    parser.add_argument(
        "--frames", metavar="FOLDER|VIDEO", help="pictures or a video that replace the camera, in an endless loop"
    )
    parser.add_argument(
        "--fps",
        type=float,
        default=30.0,
        metavar="N",
        help="camera frames per second; frames that no client fetches in time are dropped. 0 delivers every frame, on "
        "request (default: 30)",
    )
    parser.add_argument(
        "--fp16-activations", action="store_true", help="round every op's output to fp16, as the bonnet stores it"
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for each request")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo
    from mirilla.detect.resolve import compiled_model
    from mirilla.emulator.bonnet import EmulatedBonnet
    from mirilla.emulator.camera import open_frames
    from mirilla.emulator.log import in_background
    from mirilla.emulator.server import Server

    _check_ranges(args)
    models: dict[str, LoadedModel] = {}
    if args.model is not None:
        with compiled_model(args.model) as path:
            models = _load(args, path)
    frames = None if args.frames is None else open_frames(args.frames)
    bonnet = EmulatedBonnet(frames=frames, fps=args.fps, fp16_activations=args.fp16_activations, preloaded=models)
    try:
        with in_background(), Server(bonnet, args.host, args.port, on_request=echo if args.verbose else None) as server:
            _print_models(models)
            if frames is None:
                echo("Camera: none (give --frames for camera inference).")
            else:
                rate = f"{args.fps:g} frames per second" if args.fps else "each frame on request"
                echo(f"Camera: {len(frames)} pictures of {args.frames}, {rate}.")
            _print_address(server)
            server.wait()
    except KeyboardInterrupt:
        echo("Stopped.")
    return 0


def _check_ranges(args: argparse.Namespace) -> None:
    from mirilla.errors import UsageError

    if not 0 <= args.port <= MAX_PORT:
        raise UsageError(f"--port {args.port}: it must be from 0 to {MAX_PORT}.")
    if not 0 <= args.fps <= MAX_FPS:
        raise UsageError(f"--fps {args.fps}: it must be from 0 to {MAX_FPS}.")
    if not math.isfinite(args.mean) or not math.isfinite(args.stddev) or args.stddev == 0:
        raise UsageError(f"--mean {args.mean} --stddev {args.stddev}: both must be finite, and --stddev not 0.")
    if args.model is None and (args.name or args.input_size):
        raise UsageError("--name and --input-size need a MODEL.", "mirilla emulate MODEL.binaryproto")


def _load(args: argparse.Namespace, path: Path) -> dict[str, LoadedModel]:
    """The model of the command line, under its name; `path`: the compiled model."""
    from mirilla.bonnet.run import CompiledModel
    from mirilla.emulator.models import BUILT_IN, LoadedModel
    from mirilla.errors import UsageError
    from mirilla.model import card as cards

    model = CompiledModel.load(path, fp16_activations=args.fp16_activations, input_size=args.input_size)
    if model.input_size is None and (card := cards.find(path)) is not None:
        spec = cards.load(card, path).spec
        model.input_size = spec.height_px, spec.width_px
    if model.input_size is None:
        raise UsageError(
            f"{args.model}: the file does not contain the size of its input.",
            "Give it with --input-size HEIGHTxWIDTH.",
        )
    model.program(*model.input_size)  # raises if an op does not fit
    name = args.name or path.stem
    if name in BUILT_IN:
        raise UsageError(
            f"The kit's firmware has a built-in model named '{name}' and ignores other graphs of this name.",
            "Give another --name, here and on the kit.",
        )
    return {name: LoadedModel(model, *model.input_size, args.mean, args.stddev)}


def _print_models(models: dict[str, LoadedModel]) -> None:
    from mirilla.console import echo

    for name, loaded in models.items():
        echo(
            f"Model '{name}': input {loaded.height}x{loaded.width}, normalised with mean {loaded.mean:g} and stddev "
            f"{loaded.stddev:g}, outputs {', '.join(loaded.model.output_names)}."
        )
    if not models:
        echo("Model: none (clients load theirs).")


def _print_address(server: Server) -> None:
    from mirilla.console import echo

    echo(f"Listening on {server.host} port {server.port}; stop with Ctrl-C.")
    if server.host not in ("127.0.0.1", "localhost"):
        echo("Other machines can connect, without a password.")
    host = "127.0.0.1" if server.host == "0.0.0.0" else server.host
    echo("To use it with the kit's client, for example on this machine:")
    echo(f"  VISION_BONNET_HOST={host} VISION_BONNET_PORT={server.port} python my_kit_program.py")
