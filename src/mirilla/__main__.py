"""`python -m mirilla`: the command line, for programs that start modules, such as torchrun."""

import sys

from mirilla.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
