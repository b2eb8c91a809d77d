"""`Output`: the folder that a format's `save` writes into."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from mirilla.data import images
from mirilla.data.dataset import EVAL, PARTS, TRAIN, Dataset
from mirilla.data.sample import Sample
from mirilla.errors import DataError

_MAX_NAME_BYTES = 240  # file systems take 255; some formats add a suffix


class Output:
    """A folder to write a data set into.

    Attributes:
        folder: the folder.
        shards: number of TFRecord files of each part.
        advance: called with 1 after every picture.
        files: files written, except pictures and annotations of single pictures, relative to the folder.
    """

    def __init__(self, folder: Path, shards: int = 1, advance: Callable[[int], object] | None = None):
        self.folder, self.shards, self.advance = folder, shards, advance
        self.files: list[Path] = []
        self._made: set[Path] = set()

    def write(self, name: str, content: str, *, per_picture: bool = False) -> None:
        """Write a text file; `per_picture`: it is the annotation of a single picture."""
        self._path(name).write_text(content, "utf-8", newline="\n")
        if not per_picture:
            self.files.append(Path(name))

    def copy_picture(self, sample: Sample, name: str) -> None:
        """Copy a sample's picture byte for byte.

        Raises:
            DataError: the name would lead out of the folder.
        """
        path = self._path(name)
        if isinstance(sample.image, bytes):
            path.write_bytes(sample.image)
        else:
            shutil.copyfile(sample.image, path)
        if self.advance is not None:
            self.advance(1)

    def _path(self, name: str) -> Path:
        if not is_below(name):
            raise DataError(f"'{name}' leads out of the folder that is written.", "Rename the picture.")
        path = self.folder / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        return path


def is_below(name: str) -> bool:
    """Whether a name leads to a file below a folder: no drive, no leading '/', no '..'."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not {"", ".", ".."} & set(parts) and not parts[0].endswith(":") and "\0" not in name


def require_safe_names(samples: Iterable[Sample]) -> None:
    """Refuse pictures whose names cannot be used below a folder; called before anything is written.

    Raises:
        DataError: the first such name.
    """
    for sample in samples:
        name = sample.filename
        if not is_below(name) or safe_name(name) != name:
            raise DataError(
                f"{sample.where or name}: '{name}' cannot be a picture's name below the destination.",
                "Rename the picture: no '..', no leading '/', and a picture's suffix.",
            )
        if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in name.split("/")):
            raise DataError(
                f"{sample.where or name}: the name '{name[:60]}...' is longer than {_MAX_NAME_BYTES} bytes.",
                "Rename the picture.",
            )


def safe_name(name: str, picture_format: str = "jpeg") -> str:
    """A file name that is safe below a folder: no drive, no leading '/', no '..', and a picture's suffix."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    safe = "/".join(part for part in parts if not part.endswith(":")).replace("\0", "") or "picture"
    if os.path.splitext(safe)[1].lower() not in images.EXTENSIONS:
        safe += {"jpeg": ".jpg"}.get(picture_format, f".{picture_format}")
    return safe


def pixel_text(value: float) -> str:
    """A coordinate in pixels with up to 2 decimals: '12', '12.5' or '12.25'."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def by_part(dataset: Dataset) -> dict[str, list[Sample]]:
    """Samples by part; those without a part are 'train'."""
    samples: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        samples.setdefault(dataset.parts.get(sample.filename, TRAIN), []).append(sample)
    return {part: samples[part] for part in PARTS if part in samples}


def part_word(part: str) -> str:
    """The name of a part in folder and file names: 'train', 'val' or 'test'."""
    return "val" if part == EVAL else part
