"""Readers of option values that several verbs share."""

from __future__ import annotations

import argparse
import re


def size(text: str) -> tuple[int, int]:
    """'256' or '192x256' (rows x columns)."""
    parts = text.lower().strip().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"[1-9][0-9]{0,3}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no size: give pixels, 256 or 192x256 (rows x columns)")
    return int(parts[0]), int(parts[-1])
