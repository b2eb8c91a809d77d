"""Targets: what a trained network is written as. Each can be checked, built and run."""

from __future__ import annotations

from typing import Any


def export_model(*args: Any, **options: Any) -> Any:
    """See `mirilla.targets.export.export_model`, which this calls; imported only when used."""
    from mirilla.targets.export import export_model

    return export_model(*args, **options)


__all__ = ["export_model"]
