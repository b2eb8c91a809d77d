"""Findings about a pipeline: what is missing, out of range, or refused."""

from __future__ import annotations

from dataclasses import dataclass

from mirilla.config.pipeline import Pipeline
from mirilla.errors import ConfigError


@dataclass(frozen=True)
class Finding:
    """One remark. field: dotted path; severity: 'error', 'warning' or 'note'."""

    field: str
    text: str
    remedy: str | None = None
    severity: str = "error"


def check(pipeline: Pipeline) -> list[Finding]:
    """Everything there is to say about a pipeline, in the order of the file."""
    return []


def require(pipeline: Pipeline) -> None:
    """Raise ConfigError for the first errors of `check`."""
    errors = [f for f in check(pipeline) if f.severity == "error"]
    if errors:
        raise ConfigError("; ".join(f"{f.field}: {f.text}" for f in errors), errors[0].remedy)
