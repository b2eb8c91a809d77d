"""The program's entry: signals and exit codes."""

import os
import signal
import sys
import traceback

from .errors import KitError, Stop
from .options import parse
from .program import Program


def main(arguments: "list[str] | None" = None) -> int:
    """Run the program.

    Returns:
        The exit code: 0 done, or ended by SIGTERM; 1 error; 130 Ctrl-C. argparse exits with 2, the watchdog with 70.
    """
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        return Program(options).run()
    except Stop as stop:
        return 0 if stop.number == signal.SIGTERM else 130
    except KitError as error:
        sys.stderr.write("mirilla_kit: error: %s\n" % error)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone: no second error at exit
        return 0
    except Exception:
        traceback.print_exc()
        return 1


def _stop(number, frame):
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise Stop(number)


if __name__ == "__main__":
    sys.exit(main())
