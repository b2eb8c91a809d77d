"""MediaPipe's metadata of an object detector, by the numbers of TensorFlow's metadata_schema.fbs (identifier M001)."""

from __future__ import annotations

from mirilla.model.card import ModelCard
from mirilla.targets.tflite.flat import Tables

NAME = "TFLITE_METADATA"  # of the buffer in the model's file
IDENTIFIER = b"M001"
LABELS = "labels.txt"  # in the zip archive at the file's end
_MEAN = _STDDEV = 127.5
_FEATURE, _IMAGE, _BOX = 1, 2, 3  # of ContentProperties
_RGB = 1
_BOUNDARIES, _RATIO = 1, 0
_NORMALIZATION = 1  # of ProcessUnitOptions
_VALUE_LABELS = 3  # of AssociatedFileType


def metadata(card: ModelCard) -> bytes:
    """The metadata of a file with the four outputs of TFLite_Detection_PostProcess."""
    return _Writer(card).content


class _Writer(Tables):
    def __init__(self, card: ModelCard):
        super().__init__(1024)
        outputs = [
            self._output("location", _BOX, self._box()),
            self._output("category", _FEATURE, self.table([]), labels=True),
            self._output("score", _FEATURE, self.table([])),
            self._output("number of detections", _FEATURE, self.table([])),
        ]
        names = self.vector([self.text(name) for name in ("location", "category", "score")])
        group = self.table([(0, self.text("detection_result")), (1, names)])
        subgraph = self.table([(2, self.vector([self._image()])), (3, self.vector(outputs)), (8, self.vector([group]))])
        fields = [
            (0, self.text(card.name)),
            (1, self.text(f"Detects {', '.join(card.labels.names)}.")),
            (3, self.vector([subgraph])),
            (5, self.text(card.licence or "")),
            (7, self.text("1.2.0")),
        ]
        self.content = self.finish(self.table(fields), IDENTIFIER)

    def _image(self) -> int:
        properties = self.table([], [(0, "int8", _RGB)])
        content = self.table([(1, properties)], [(0, "int8", _IMAGE)])
        options = self.table([(0, self.numbers([_MEAN], "<f4")), (1, self.numbers([_STDDEV], "<f4"))])
        unit = self.table([(1, options)], [(0, "int8", _NORMALIZATION)])
        stats = self.table([(0, self.numbers([255.0], "<f4")), (1, self.numbers([0.0], "<f4"))])
        return self.table([(0, self.text("image")), (3, content), (4, self.vector([unit])), (5, stats)])

    def _box(self) -> int:
        order = self.numbers([1, 0, 3, 2], "<u4")  # of left, top, right, bottom in yxyx
        return self.table([(0, order)], [(1, "int8", _BOUNDARIES), (2, "int8", _RATIO)])

    def _output(self, name: str, kind: int, properties: int, *, labels: bool = False) -> int:
        content = self.table([(1, properties)], [(0, "int8", kind)])
        fields = [(0, self.text(name)), (3, content)]
        if labels:
            file = self.table([(0, self.text(LABELS))], [(2, "int8", _VALUE_LABELS)])
            fields.append((6, self.vector([file])))
        return self.table(fields)
