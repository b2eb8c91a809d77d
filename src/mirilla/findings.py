"""What a check reports: one finding names the place, the rule, what is wrong there and the remedy."""

from __future__ import annotations
