"""Writing FlatBuffers table by table, innermost first, by the numbers of a schema's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flatbuffers
import numpy as np

Kind = Literal["int8", "int32", "float32", "bool"]
Scalar = tuple[int, Kind, float]  # (number of the field, its type, its value)


class Tables:
    """Tables of a FlatBuffer; what a table refers to is made before it."""

    def __init__(self, size: int = 1 << 16):
        self.builder = flatbuffers.Builder(size)

    def table(self, offsets: Sequence[tuple[int, int]], scalars: Sequence[Scalar] = ()) -> int:
        """A table from fields that are offsets (made before) and fields that are numbers."""
        last = max([number for number, *_ in offsets] + [number for number, *_ in scalars], default=-1)
        self.builder.StartObject(last + 1)
        for number, offset in offsets:
            self.builder.PrependUOffsetTRelativeSlot(number, offset, 0)
        for number, kind, value in scalars:
            if kind == "float32":
                self.builder.PrependFloat32Slot(number, float(value), 0.0)
            elif kind == "int32":
                self.builder.PrependInt32Slot(number, int(value), 0)
            elif kind == "bool":
                self.builder.PrependBoolSlot(number, bool(value), False)
            else:
                self.builder.PrependInt8Slot(number, int(value), 0)
        return self.builder.EndObject()

    def vector(self, offsets: Sequence[int]) -> int:
        """A vector of tables or strings."""
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def numbers(self, values: Sequence[int] | Sequence[float] | np.ndarray, dtype: str = "<i4") -> int:
        """A vector of numbers."""
        return self.builder.CreateNumpyVector(np.asarray(values, dtype))

    def text(self, text: str) -> int:
        """A string."""
        return self.builder.CreateString(text)

    def finish(self, root: int, identifier: bytes) -> bytes:
        """The buffer with its root table."""
        self.builder.Finish(root, identifier)
        return bytes(self.builder.Output())
