"""What a rule's breach looks like: one finding names the layer, the rule, what is wrong and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mirilla.errors import ModelError

PROVEN = "proven"
INFERRED = "inferred"


@dataclass(frozen=True)
class Finding:
    """One breach of one rule.

    Attributes:
        rule: a short stable name ('unknown-op', 'arena-overflow').
        layer: the node, layer or tensor concerned.
        what: what is wrong there and what the rule says, a sentence or two.
        remedy: what to do about it.
        certainty: PROVEN when files or the graph itself show it, INFERRED when no sample says so.
        op: the operation's type, when there is one.
    """

    rule: str
    layer: str
    what: str
    remedy: str
    certainty: str = PROVEN
    op: str | None = None


class RuleError(ModelError):
    """A graph or model that breaks rules; `findings` holds every breach found before giving up."""

    shown = 6

    def __init__(self, findings: Sequence[Finding]):
        self.findings = tuple(findings)
        first = self.findings[: self.shown]
        what = "\n  ".join(finding.what for finding in first)
        if len(self.findings) > self.shown:
            what += f"\n  and {len(self.findings) - self.shown} more."
        super().__init__(what, " ".join(dict.fromkeys(finding.remedy for finding in first)))


def breach(
    rule: str, layer: str, what: str, remedy: str, *, certainty: str = PROVEN, op: str | None = None
) -> RuleError:
    """A RuleError with a single finding."""
    return RuleError([Finding(rule, layer, what, remedy, certainty, op)])
