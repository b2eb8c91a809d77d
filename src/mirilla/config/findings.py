"""A remark on a pipeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One remark on a pipeline.

    field: path with indices: 'train_config.data_augmentation_options[1].random_crop_image'.
    text: what is the matter. remedy: what to do, or None.
    severity: 'error' (refused, missing or out of range), 'warning' (will not do what it seems to) or 'note'
        (a value is set that has no effect).
    """

    field: str
    text: str
    remedy: str | None = None
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"
