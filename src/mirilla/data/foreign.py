"""Annotations in a labelling tool's own format, which Mirilla does not read: named, with the export to choose.

A file is judged by its beginning, so that the answer does not depend on its size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mirilla.data import text
from mirilla.errors import DataError

_HEAD_BYTES = 1 << 16
_MOST_FILES = 50  # that are opened in a folder and in each folder inside it


@dataclass(frozen=True)
class _Tool:
    """A format: its name, the suffixes of its files, patterns that its beginning must all match, and the remedy."""

    title: str
    suffixes: tuple[str, ...]
    patterns: tuple[str, ...]
    remedy: str


_JSON = (".json", ".jsonl", ".ndjson")
_TOOLS = (
    _Tool(
        "labelme's JSON",
        _JSON,
        ('"shapes"', '"(imagePath|shape_type)"'),
        "Convert it to COCO or Pascal VOC with labelme's own labelme2coco.py or labelme2voc.py.",
    ),
    _Tool(
        "CreateML's JSON",
        _JSON,
        (r"\A\s*\[", '"coordinates"', '"annotations?"'),
        "Export the labels as COCO, Pascal VOC or YOLO instead.",
    ),
    _Tool(
        "VGG Image Annotator's (VIA's) JSON",
        _JSON,
        ('"_via_|"shape_attributes"',),
        "In VIA, choose 'Export Annotations (COCO format)'.",
    ),
    _Tool(
        "VGG Image Annotator's (VIA's) CSV",
        (".csv",),
        ("region_shape_attributes",),
        "In VIA, choose 'Export Annotations (COCO format)'.",
    ),
    _Tool(
        "Supervisely's JSON",
        _JSON,
        ('"(classTitle|geometryType)"',),
        "In Supervisely, run the app 'Export to COCO' or 'Export to Pascal VOC'.",
    ),
    _Tool(
        "Label Studio's JSON",
        _JSON,
        ('"(rectanglelabels|result)"', '"(annotations|completions|data|label)"'),
        "In Label Studio, choose the export 'COCO' or 'YOLO'.",
    ),
    _Tool(
        "COCO's results (a model's detections)",
        _JSON,
        (r"\A\s*\[", '"image_id"', '"(bbox|score)"'),
        "Give the annotation file, with 'images', 'annotations' and 'categories'.",
    ),
    _Tool(
        "VoTT's JSON",
        _JSON,
        ('"assets?"', '"(regions|tags)"'),
        "In VoTT, choose the export 'Pascal VOC', 'CSV' or 'TFRecords'.",
    ),
    _Tool(
        "CVAT's XML",
        (".xml",),
        (r"<annotations\b", r"<(image|track|meta|version)\b"),
        "In CVAT, choose the export 'COCO 1.0', 'PASCAL VOC 1.1' or 'YOLO 1.1'.",
    ),
    _Tool(
        "dlib's XML (imglab)",
        (".xml",),
        (r"<dataset\b", r"<images?\b"),
        "Open it in a tool that exports COCO or Pascal VOC.",
    ),
    _Tool(
        "RetinaFace's label.txt",
        (".txt",),
        (r"\A\s*#[^\n]+\n\s*(-?[\d.]+\s+){3,}",),
        "Take WIDER FACE's own wider_face_split/*_bbx_gt.txt, which has the same boxes, or write COCO or YOLO.",
    ),
    _Tool(
        "keras-yolo3's list",
        (".txt",),
        (r"\A\S+\.\w+( \d+,\d+,\d+,\d+,\d+)+\s*(\n|\Z)",),
        "Write COCO, Pascal VOC or YOLO.",
    ),
)
_SUFFIXES = frozenset(suffix for tool in _TOOLS for suffix in tool.suffixes)


def refuse_file(path: Path) -> None:
    """Refuse a file in a tool's own format.

    Raises:
        DataError: it is one.
    """
    if (tool := _tool_of(path)) is not None:
        raise DataError(f"{path}: this is {tool.title}, which is not read.", tool.remedy)


def refuse_folder(folder: Path) -> None:
    """Refuse a folder that has files in a tool's own format, also in folders inside it.

    Raises:
        DataError: it has some; the message names the first.
    """
    found = [(path, tool) for path in _files(folder) if (tool := _tool_of(path)) is not None]
    if not found:
        return
    path, tool = found[0]
    count = sum(other is tool for _, other in found)
    files = "1 file" if count == 1 else f"{count} files" if count < _MOST_FILES else f"{count} files or more"
    raise DataError(
        f"{folder}: it has no data set that Mirilla reads, but {files} of {tool.title} (first: {path}), which is not "
        "read.",
        tool.remedy,
    )


def refuse_xml(folders: Iterable[Path]) -> None:
    """Refuse folders in which no XML file is Pascal VOC's, but one is a tool's own.

    Raises:
        DataError: as `refuse_file`, about the first of these.
    """
    for folder in folders:
        for path in sorted(folder.glob("*.xml"))[:_MOST_FILES]:
            if re.search(r"<annotation[\s>]", text.head(path)):
                return
            refuse_file(path)


def _tool_of(path: Path) -> _Tool | None:
    suffix = path.suffix.lower()
    tools = [tool for tool in _TOOLS if suffix in tool.suffixes]
    if not tools or not os.path.isfile(path):
        return None
    head = text.head(path, _HEAD_BYTES)
    if suffix in _JSON and re.search(r'"images"\s*:\s*\[', head):  # COCO
        return None
    return next((t for t in tools if all(re.search(pattern, head, re.DOTALL) for pattern in t.patterns)), None)


def _files(folder: Path) -> Iterator[Path]:
    """The first files of a folder and of the folders inside it, two levels deep."""
    for place, inside, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) == 2:
            inside.clear()
        inside[:] = sorted(inside)[:_MOST_FILES]
        chosen = [name for name in sorted(names) if os.path.splitext(name)[1].lower() in _SUFFIXES]
        yield from (Path(place, name) for name in chosen[:_MOST_FILES])
