"""`mirilla emulate`: a Vision Bonnet on this machine, for the kit's own client."""

from __future__ import annotations

import argparse

NAME = "emulate"
HELP = "answer the kit's client over TCP as a Vision Bonnet would"

EXAMPLE = """example:
  mirilla emulate face.binaryproto --frames photos
  VISION_BONNET_HOST=127.0.0.1 VISION_BONNET_PORT=35000 python my_kit_program.py

The model is loaded under its file's name without the ending, as if a client had loaded it; clients may load
further models. docs/emulator.md tells how to install and use the kit's client."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "model",
        metavar="MODEL.binaryproto",
        nargs="?",
        help="a compiled model to have loaded from the start; clients can load others",
    )
    parser.add_argument("--name", help="the model's name for clients (default: its file's stem)")
    parser.add_argument(
        "--mean",
        type=float,
        default=128.0,
        metavar="M",
        help="normalisation of the model given: (pixel - M) / S (default: 128)",
    )
    parser.add_argument("--stddev", type=float, default=128.0, metavar="S", help="see --mean (default: 128)")
    parser.add_argument(
        "--input-size",
        type=_size,
        metavar="N|HxW",
        help="input of the model given, where neither the file nor its model.json tells it",
    )
    parser.add_argument("--port", type=int, default=35000, help="0 takes a free one (default: 35000)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, which only this machine reaches; the protocol has no password)",
    )
    parser.add_argument(
        "--frames",
        metavar="FOLDER|VIDEO",
        help="pictures or a video that stand in for the camera, shown again and again",
    )
    parser.add_argument(
        "--fps",
        type=float,
        default=30.0,
        metavar="N",
        help="camera frames a second; frames that nobody takes in time are dropped; 0 gives "
        "every frame, each when it is asked for (default: 30)",
    )
    parser.add_argument(
        "--fp16-activations", action="store_true", help="round every op's output to fp16, as the device stores it"
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for each request")


def run(args: argparse.Namespace) -> int:
    import logging
    import math
    from pathlib import Path

    from mirilla.bonnet.run import CompiledModel
    from mirilla.console import echo
    from mirilla.emulator.bonnet import EmulatedBonnet
    from mirilla.emulator.camera import open_frames
    from mirilla.emulator.models import BUILT_IN, LoadedModel
    from mirilla.emulator.server import Server
    from mirilla.errors import UsageError
    from mirilla.model import card as cards

    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: the rule is 0 to 65535.")
    if not 0 <= args.fps <= 1000:
        raise UsageError(f"--fps {args.fps}: the rule is 0 to 1000.")
    if not math.isfinite(args.mean) or not math.isfinite(args.stddev) or args.stddev == 0:
        raise UsageError(f"--mean {args.mean} --stddev {args.stddev}: the rule is finite, and stddev not 0.")
    preloaded = {}
    if args.model is None and (args.name or args.input_size):
        raise UsageError("--name and --input-size describe a model, and none is given.")
    if args.model is not None:
        model = CompiledModel.load(args.model, fp16_activations=args.fp16_activations, input_size=args.input_size)
        if model.input_size is None and (card := cards.find(args.model)) is not None:
            spec = cards.load(card, args.model).spec
            model.input_size = spec.height_px, spec.width_px
        if model.input_size is None:
            raise UsageError(
                f"{args.model}: the file does not tell the size of its input.",
                "Give it with --input-size HEIGHTxWIDTH.",
            )
        model.program(*model.input_size)
        name = args.name or Path(args.model).stem
        if name in BUILT_IN:
            raise UsageError(
                f"The kit's firmware ignores graphs named '{name}': it has a model of its own.",
                "Give another --name, here and on the kit.",
            )
        preloaded[name] = LoadedModel(model, *model.input_size, args.mean, args.stddev)
    frames = None if args.frames is None else open_frames(args.frames)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    bonnet = EmulatedBonnet(frames=frames, fps=args.fps, fp16_activations=args.fp16_activations, preloaded=preloaded)
    try:
        with Server(bonnet, args.host, args.port, on_request=echo if args.verbose else None) as server:
            for name, loaded in preloaded.items():
                size, normaliser = f"{loaded.height}x{loaded.width}", f"({loaded.mean:g}, {loaded.stddev:g})"
                outputs = ", ".join(loaded.model.output_names)
                echo(f"Model '{name}': input {size}, normalised with {normaliser}, outputs {outputs}.")
            if not preloaded:
                echo("No model given: clients load theirs.")
            if frames is not None:
                rate = f"{args.fps:g} frames a second" if args.fps else "each frame as it is asked for"
                echo(f"Camera: {len(frames)} pictures of {args.frames}, {rate}.")
            else:
                echo("Camera: none (give --frames for camera inference).")
            echo(f"Listening on {server.host} port {server.port}; Ctrl-C ends it.")
            if args.host not in ("127.0.0.1", "localhost"):
                echo("Other machines can reach it, and nothing asks them for a password.")
            shown = "127.0.0.1" if server.host == "0.0.0.0" else server.host
            echo("Use it with the kit's client, here for instance:")
            echo(f"  VISION_BONNET_HOST={shown} VISION_BONNET_PORT={server.port} python my_kit_program.py")
            server.wait()
    except KeyboardInterrupt:
        echo("Stopped.")
    return 0


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    try:
        sides = [int(part) for part in parts]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither N nor HEIGHTxWIDTH in pixels")
    return sides[0], sides[-1]
