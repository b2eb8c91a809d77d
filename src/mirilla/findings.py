"""The results of checks: `Finding`, and `RuleError` for findings that are errors.

The checks of graphs, pipeline files, data sets and the kit all use these classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mirilla.errors import ModelError

Severity = Literal["error", "warning", "note"]
Certainty = Literal["proven", "inferred"]

ERROR: Final = "error"  # refused: it does not work, or cannot be used
WARNING: Final = "warning"  # accepted, but probably wrong
NOTE: Final = "note"  # informational
SEVERITIES: tuple[Severity, ...] = (ERROR, WARNING, NOTE)

PROVEN: Final = "proven"
INFERRED: Final = "inferred"


@dataclass(frozen=True)
class Finding:
    """A single result of a check.

    Attributes:
        severity: ERROR, WARNING or NOTE.
        code: a short, stable identifier of the kind of finding: 'unknown-op', 'missing-picture'.
        where: the place: file and line, record, node, layer, tensor or field.
        what: what is wrong there, in one or two sentences.
        remedy: what to do about it; empty if there is nothing to do.
        certainty: PROVEN if files, logs or the checked file itself show that the rule holds; INFERRED if the rule
            is a conclusion from known cases.
        evidence: what shows the rule, or what it is inferred from.
        rule: the broken rule, in one sentence.
        op: the type of the op concerned.
        fixable: whether `mirilla doctor --fix` removes the finding.
        alive: for findings on memory: (tensor, bytes) of everything that is live at the same time.
    """

    severity: Severity
    code: str
    where: str
    what: str
    remedy: str = ""
    certainty: Certainty = PROVEN
    evidence: str = ""
    rule: str = ""
    op: str | None = None
    fixable: bool = False
    alive: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Code and place: findings with the same key are the same finding."""
        return self.code, self.where

    def __str__(self) -> str:
        line = f"{self.severity}: {self.where}: {self.what} [{self.code}]"
        return f"{line} {self.remedy}" if self.remedy else line


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, errors first; otherwise in the given order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


class RuleError(ModelError):
    """A graph or model breaks rules; `findings` holds all findings up to the point where the check stopped."""

    shown = 6

    def __init__(self, findings: Sequence[Finding]):
        self.findings = tuple(findings)
        first = self.findings[: self.shown]
        what = "\n  ".join(finding.what for finding in first)
        if len(self.findings) > self.shown:
            what += f"\n  and {len(self.findings) - self.shown} more."
        super().__init__(what, " ".join(dict.fromkeys(finding.remedy for finding in first)))


def breach(
    code: str, where: str, what: str, remedy: str, *, certainty: Certainty = PROVEN, op: str | None = None
) -> RuleError:
    """A RuleError with a single finding."""
    return RuleError([Finding(ERROR, code, where, what, remedy, certainty, op=op)])
