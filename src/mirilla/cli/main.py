"""The command `mirilla`: run a verb, and print an error that the user can fix as one clear message."""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from types import ModuleType

from mirilla.cli.parser import Parser

# verb -> help text. A verb's module is imported only when it is called, so that `mirilla --help` stays fast.
VERBS = {
    "demo": "draw a toy data set, and train, evaluate, export and detect on it (no network needed)",
    "run": "the main job on your photos: convert, train, evaluate, export, detect, report",
    "data": "convert, check, describe and download data sets; fit anchors to them",
    "zoo": "list the named models: parameters, multiplications, memory on the bonnet, accuracy",
    "init": "write a pipeline.config for a data set",
    "train": "train the network of a pipeline.config",
    "eval": "measure a model or a file of predictions on a data set",
    "export": "write a checkpoint as a frozen graph with its model.json",
    "import": "turn an old checkpoint or frozen graph into a training folder",
    "detect": "detect objects in photos, folders, videos or a camera's frames",
    "compile": "compile a frozen graph for the Vision Bonnet (.binaryproto)",
    "inspect": "show the layers, shapes and memory of a compiled model or frozen graph",
    "doctor": "check whether a graph, compiled model or pipeline.config runs on the Vision Kit; fix graphs",
    "emulate": "emulate a Vision Bonnet for the kit's client, over TCP",
    "tf1": "run a script of the guide of 2018 with its old flags (model_main, export_inference_graph, ...)",
    "deploy": "deploy a compiled model to a Vision Kit over SSH; run it there, roll back, remove",
}


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; it lists all verbs, but has the options of `verb` only."""
    parser = Parser(
        prog="mirilla",
        description="Train a tiny object detector and run it on tiny devices.",
        epilog="'mirilla VERB --help' describes a verb.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, text in VERBS.items():
        verb_parser = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == verb:
            _module(name).add_arguments(verb_parser)
    return parser


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"mirilla.cli.{verb}{'_' if keyword.iskeyword(verb) else ''}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 success, 1 error, 2 wrong usage, 130 stopped by Ctrl-C."""
    from mirilla.console import printable
    from mirilla.errors import MirillaError

    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    parser = build_parser(verb if verb in VERBS else None)
    args = parser.parse_args(arguments)
    if args.version:
        from mirilla.version import __version__

        print(f"mirilla {__version__}")
        return 0
    if args.verb is None:
        parser.print_help()
        return 2
    try:
        return _module(args.verb).run(args) or 0
    except MirillaError as error:
        print(f"mirilla {args.verb}: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"mirilla {args.verb}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
