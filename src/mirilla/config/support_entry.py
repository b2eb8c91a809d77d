"""An entry of the support table: how Mirilla treats a field of pipeline.config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mirilla.config.fields import Scalar

Status = Literal["acts", "refused", "no effect"]
ACTS: Final = "acts"
REFUSED: Final = "refused"
NO_EFFECT: Final = "no effect"


@dataclass(frozen=True)
class Support:
    """How a field is treated.

    Attributes:
        status: ACTS; REFUSED (any value but the default is an error; for a message, its presence is); NO_EFFECT
            (it does not affect the result, neither in Mirilla nor in the API).
        reason: why it is refused or has no effect, or how it acts.
        only: the accepted values; empty if all are. For an unset field, its default counts.
    """

    status: Status
    reason: str = ""
    only: tuple[Scalar, ...] = ()


def acts(reason: str = "") -> Support:
    """Every value acts as in the API."""
    return Support(ACTS, reason)


def each(entry: Support, *names: str) -> dict[str, Support]:
    """The same entry for several fields."""
    return dict.fromkeys(names, entry)


def only(*values: Scalar, reason: str) -> Support:
    """Only these values are accepted."""
    return Support(ACTS, reason, values)


def refused(reason: str) -> Support:
    """Any value but the default is an error."""
    return Support(REFUSED, reason)


def no_effect(reason: str) -> Support:
    """The field is ignored."""
    return Support(NO_EFFECT, reason)


def under(prefix: str, entries: Mapping[str, Support]) -> tuple[tuple[str, Support], ...]:
    """Entries for the fields of a message; the empty name means the message itself."""
    return tuple((f"{prefix}.{name}" if name else prefix, entry) for name, entry in entries.items())


# Reasons that several entries share.
MASKS = "instance masks are not supported; Mirilla detects boxes"
KEYPOINTS = "keypoints are not supported; Mirilla detects boxes"
OTHER_FAMILY = "belongs to other model families"
DISTILLATION = "the API's distillation is not supported; see mirilla.distillation"
RGB = "the networks have three input channels"
NORMALISED = "boxes are always normalised to the image"
