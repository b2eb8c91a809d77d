"""Every error that Mirilla raises on purpose.

    MirillaError                 the user can mend it; the command line prints it without a traceback
    ├── UsageError               the command line's options do not fit together
    ├── MissingExtraError        an optional dependency is not installed; names the command that installs it
    ├── DataError                a data set, a photo or a record is broken or missing
    ├── ConfigError              pipeline.config or a label map is wrong; carries file and line
    ├── ModelError               a graph, a checkpoint or a compiled model cannot be read or does not fit
    ├── TrainingError            training cannot go on (a NaN loss, say)
    ├── DownloadError            a file could not be fetched, or its checksum is wrong
    └── BoardError               the kit cannot be reached or refuses

A message says what is wrong, where (file and line, tensor, layer, record), the rule, and the remedy.
Anything else that escapes is a bug, and is shown with its traceback.
"""

from __future__ import annotations


class MirillaError(Exception):
    """Something the user can mend.

    Args:
        what: what is wrong and where, with the rule it breaks; one or two sentences.
        remedy: what to do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str | None = None):
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what if self.remedy is None else f"{self.what}\n  Remedy: {self.remedy}"


class UsageError(MirillaError):
    """Options that do not fit together, or name nothing that exists."""

    exit_code = 2


class MissingExtraError(MirillaError):
    """An optional dependency that this verb needs is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            f"pip install 'mirilla[{extra}]'",
        )
        self.extra = extra


class DataError(MirillaError):
    """A data set, a photo or a record that is broken, missing or empty."""


class ConfigError(MirillaError):
    """A pipeline.config or label map that cannot be read or is refused."""


class ModelError(MirillaError):
    """A graph, checkpoint, model.json or compiled model that cannot be read or does not fit."""


class TrainingError(MirillaError):
    """Training that cannot go on."""


class DownloadError(MirillaError):
    """A file that could not be fetched whole."""


class BoardError(MirillaError):
    """A kit that cannot be reached, or refuses."""
