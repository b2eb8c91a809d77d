"""The formats of data sets, each listed once: reading, writing, recognition and the command line use this table.

Each format has a module in this folder with

    find(folder) -> list[Path]                        its annotation files or folders in a folder
    load(path, split=None, advance=None) -> Dataset   read a folder or an annotation file
    save(output, dataset, ids)                        write a data set, if the format is writable
    near_miss(folder) -> str | None                   optional: why a folder without a data set is not one

The modules are imported when first used, so importing the table is fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mirilla.errors import MirillaError, UsageError

if TYPE_CHECKING:
    from mirilla.data.dataset import Dataset
    from mirilla.data.output import Output


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    Attributes:
        name: its name on the command line.
        title: its name in messages.
        module: the module in this folder that reads and writes it.
        layout: what a folder must contain to be recognised, for messages.
        files: patterns of the lower-case names of its annotation files.
        writable: whether Mirilla writes it.
        lacks: box properties that it cannot store: "ignore", "difficult", "group_of", "is_crowd", "weight".
        label: the label of every box, if the format stores none.
        clips: whether boxes must lie inside the picture.
        named_by_stem: whether an annotation is found by the picture's name without its suffix.
    """

    name: str
    title: str
    module: str
    layout: str
    files: tuple[str, ...]
    writable: bool = True
    lacks: tuple[str, ...] = ()
    label: str | None = None
    clips: bool = False
    named_by_stem: bool = False

    def recognises(self, file: Path) -> bool:
        """Whether a file's name belongs to this format."""
        return any(fnmatch(file.name.lower(), pattern) for pattern in self.files)

    def find(self, folder: Path) -> list[Path]:
        """The format's annotation files or folders in a folder; empty if it is not of this format."""
        return self._module().find(folder)

    def why_not(self, folder: Path) -> str | None:
        """Why a folder that `find` rejects is not of this format, if it has something of it."""
        near_miss = getattr(self._module(), "near_miss", None)
        if near_miss is not None and (reason := near_miss(folder)):
            return reason
        for file in sorted(path for path in folder.iterdir() if self.recognises(path) and path.is_file()):
            try:
                self.load(file)
            except MirillaError as error:
                return error.what
        return None

    def load(self, path: Path, split: str | None = None, advance: Callable[[int], object] | None = None) -> Dataset:
        """Read a data set of this format.

        Raises:
            DataError: no such data set at the path, no usable picture, or no such part.
        """
        return self._module().load(path, split, advance)

    def save(self, output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
        """Write a data set; `ids` maps class names to numbers.

        Raises:
            MirillaError: a picture cannot be read, or the disk is full.
        """
        self._module().save(output, dataset, ids)

    def _module(self) -> ModuleType:
        return importlib.import_module(f"mirilla.data.{self.module}")


# In the order in which formats are tried on a folder.
FORMATS = (
    Format(
        "widerface",
        "WIDER FACE",
        "widerface",
        "wider_face_split/ or bbx_gt*.txt",
        ("*.mat", "*bbx_gt*.txt"),
        lacks=("difficult", "group_of", "is_crowd", "weight"),
        label="face",
    ),
    Format("fddb", "FDDB", "fddb", "FDDB-folds/", ("*ellipselist.txt",), writable=False, label="face"),
    Format("voc", "Pascal VOC", "voc", "Annotations/*.xml", ("*.xml",), named_by_stem=True),
    Format("coco", "COCO", "coco", "instances_*.json or _annotations.coco.json", ("*.json",)),
    Format(
        "yolo",
        "YOLO",
        "yolo",
        "data.yaml, obj.data, images/ with labels/*.txt, or pictures with .txt files",
        ("*.yaml", "*.yml", "*.data"),
        lacks=("ignore", "difficult", "group_of", "is_crowd", "weight"),
        clips=True,
        named_by_stem=True,
    ),
    Format(
        "tfrecord",
        "TFRecord",
        "tfrecord",
        "*.tfrecord or *.record",
        (
            *("*.tfrecord", "*.tfrecords", "*.record", "*.records", "*.tfrec", "*-[0-9]*-of-[0-9]*"),
            *("*.tfrecord.gz", "*.record.gz", "*.tfrec.gz"),
        ),
        clips=True,
    ),
    Format("csv", "CSV", "csv_table", "*.csv", ("*.csv", "*.tsv")),
)
BY_NAME: Mapping[str, Format] = {format.name: format for format in FORMATS}
READABLE = tuple(BY_NAME)
WRITABLE = tuple(format.name for format in FORMATS if format.writable)


def readable(name: str) -> Format:
    """The format of this name, to read.

    Raises:
        UsageError: there is no such format.
    """
    return _named(name, READABLE)


def writable(name: str) -> Format:
    """The format of this name, to write.

    Raises:
        UsageError: there is no such format, or Mirilla only reads it.
    """
    return _named(name, WRITABLE)


def _named(name: str, choices: tuple[str, ...]) -> Format:
    if name not in choices:
        raise UsageError(f"Unknown format '{name}'. Choose from: {', '.join(choices)}.")
    return BY_NAME[name]
