"""The exceptions of Mirilla.

    MirillaError                 the user can fix the cause; the command line prints it without a traceback
    ├── UsageError               options do not fit together, or a value is not allowed
    ├── MissingExtraError        an optional dependency is not installed; the remedy installs it
    ├── DataError                a data set, a photo or a record is missing or malformed
    ├── ConfigError              a pipeline.config or label map is invalid; names file and line
    ├── ModelError               a graph, a checkpoint or a compiled model cannot be read or does not fit
    ├── TrainingError            training cannot continue (the loss is NaN, for example)
    ├── DownloadError            a download failed, or its checksum is wrong
    └── BoardError               the kit cannot be reached, or a command fails there

A message states what is wrong, where (file and line, tensor, layer, record), the rule, and the remedy. Any other
exception is a bug and is shown with its traceback.
"""

from __future__ import annotations


class MirillaError(Exception):
    """An error whose cause the user can fix.

    Args:
        what: what is wrong and where, with the rule it breaks; one or two sentences.
        remedy: what to do about it, as an imperative sentence; printed on its own line.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str | None = None):
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what if self.remedy is None else f"{self.what}\n  Remedy: {self.remedy}"


class UsageError(MirillaError):
    """Options do not fit together, or a value is not allowed."""

    exit_code = 2


class MissingExtraError(MirillaError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            f"pip install 'mirilla[{extra}]'",
        )
        self.extra = extra


class DataError(MirillaError):
    """A data set, a photo or a record is missing, malformed or empty."""


class ConfigError(MirillaError):
    """A pipeline.config or label map cannot be read or is invalid."""


class ModelError(MirillaError):
    """A graph, checkpoint, model.json or compiled model cannot be read or does not fit."""


class TrainingError(MirillaError):
    """Training cannot continue."""


class DownloadError(MirillaError):
    """A download failed."""


class BoardError(MirillaError):
    """The kit cannot be reached, or a command fails there."""
