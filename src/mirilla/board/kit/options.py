"""The program's command line."""

import argparse
import os
import sys
import urllib.parse
from collections.abc import Callable

from .errors import explain


def parser() -> argparse.ArgumentParser:
    """The parser of the program's options."""
    made = argparse.ArgumentParser(
        prog="mirilla_kit.py", description="Run a detector or classifier on the Vision Kit.", allow_abbrev=False
    )
    _add_detection(made)
    _add_faults(made)
    _add_page(made.add_argument_group("web page"))
    _add_snapshots(made.add_argument_group("snapshots"))
    _add_alert(made.add_argument_group("alert"))
    return made


def parse(arguments: "list[str] | None") -> argparse.Namespace:
    """The options of a command line; those of sys.argv by default."""
    options = parser().parse_args(arguments)
    if options.tries is None:
        options.tries = 3 if options.once else 0
    return options


def _number(kind: "Callable[[str], float]", low: float, high: float, rule: str) -> "Callable[[str], float]":
    """A parser of numbers from low to high."""

    def parse_number(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError("'%s': the rule is %s" % (text, rule))
        return value

    return parse_number


_COUNT = _number(int, 1, 1000000, "a whole number, 1 or more")
_SECONDS = _number(float, 0, 1e6, "seconds, 0 or more")


def webhook(text: str) -> str:
    """The address of the webhook, or of @FILE, which contains it."""
    if text.startswith("@"):
        try:
            with open(text[1:]) as file:
                text = file.read().strip()
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(explain(error))
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("the rule is an address that begins with http:// or https://")
    return text


def _add_detection(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--dir",
        default=os.path.dirname(os.path.abspath(sys.argv[0])),
        metavar="FOLDER",
        help="folder of the .binaryproto and its model.json (default: this program's)",
    )
    group.add_argument(
        "--source",
        default="camera",
        metavar="camera|FILE|FOLDER",
        help="the camera, a picture, or all pictures of a folder, repeatedly (default: camera)",
    )
    group.add_argument("--once", action="store_true", help="process one camera frame, or each picture once, and exit")
    group.add_argument("--json", action="store_true", help="print a JSON line for each frame and event")
    group.add_argument(
        "--threshold",
        type=_number(float, 0, 1, "0 to 1"),
        metavar="T",
        help="report detections with a score of at least T (default: model.json's recommendation)",
    )
    group.add_argument("--dense", action="store_true", help="request whole outputs (slower; for comparison)")
    group.add_argument(
        "--framerate",
        type=_number(int, 1, 40, "1 to 40"),
        default=30,
        metavar="N",
        help="the camera's frames per second (default: 30)",
    )
    group.add_argument(
        "--max-rate",
        type=_number(float, 0.001, 1000, "more than 0"),
        metavar="N",
        help="process at most N frames per second (default: no limit)",
    )


def _add_faults(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--tries",
        type=_number(int, 0, 1000000, "0 or more"),
        metavar="N",
        help="exit after N faults in a row; 0: never (default: 0, with --once 3)",
    )
    group.add_argument(
        "--stall",
        type=_SECONDS,
        default=90.0,
        metavar="S",
        help="exit with code 70, to be restarted, if the program stalls for S seconds; 0: never (default: 90)",
    )


def _add_page(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--web",
        type=_number(int, 0, 65535, "0 to 65535"),
        metavar="PORT",
        help="serve a page with the live picture, boxes, rate and temperatures at this port (0: any free port)",
    )
    group.add_argument(
        "--web-host",
        default="0.0.0.0",
        metavar="H",
        help="address to listen on (default: 0.0.0.0, all addresses of this machine)",
    )
    group.add_argument(
        "--web-token-file",
        metavar="FILE",
        help="keep the token in this file, so that the page's address does not change (default: the token of the "
        "variable MIRILLA_WEB_TOKEN, or a new one at each start)",
    )


def _add_snapshots(group: "argparse._ActionsContainer") -> None:
    group.add_argument("--snapshots", metavar="DIR", help="save a picture here when an object is detected")
    group.add_argument(
        "--snapshots-max", type=_COUNT, default=200, metavar="N", help="keep the newest N (default: 200)"
    )
    group.add_argument(
        "--snapshots-every", type=_SECONDS, default=5.0, metavar="S", help="at most one every S seconds (default: 5)"
    )


def _add_alert(group: "argparse._ActionsContainer") -> None:
    group.add_argument(
        "--alert-command",
        metavar="CMD",
        help="run CMD (without a shell) with the event as JSON on its standard input and in MIRILLA_ALERT",
    )
    group.add_argument(
        "--alert-webhook",
        type=webhook,
        metavar="URL",
        help="POST the event as JSON to URL; @FILE reads the URL from a file, since it may be a secret",
    )
    group.add_argument(
        "--alert-label",
        action="append",
        default=[],
        metavar="LABEL",
        help="only this label raises alerts and is saved as snapshots; repeatable (default: all labels)",
    )
    group.add_argument(
        "--alert-min-frames",
        type=_COUNT,
        default=3,
        metavar="N",
        help="raise the alert after N frames in a row with an object (default: 3)",
    )
    group.add_argument(
        "--alert-clear-frames",
        type=_COUNT,
        default=15,
        metavar="N",
        help="clear it after N frames in a row without one (default: 15)",
    )
    group.add_argument(
        "--alert-every",
        type=_SECONDS,
        default=60.0,
        metavar="SECONDS",
        help="minimum time between two actions (default: 60)",
    )
    group.add_argument(
        "--led", action="store_true", help="light the button: green, red during an alert, yellow during a fault"
    )
    group.add_argument("--buzzer", action="store_true", help="sound the buzzer at an alert")
    group.add_argument(
        "--gpio",
        type=_number(int, 0, 27, "a BCM number, 0 to 27"),
        metavar="PIN",
        help="hold this pin high during an alert",
    )
