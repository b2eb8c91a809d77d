"""`python -m mirilla`: the command line, for programs such as torchrun that start modules."""

import sys

from mirilla.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
