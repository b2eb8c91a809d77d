"""Small pictures and data sets for the tests of mirilla.data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mirilla.data import Dataset, Sample


def picture(height: int = 20, width: int = 30, format: str = "JPEG", mode: str = "RGB", seed: int = 0, **save) -> bytes:
    """An encoded picture of smooth colours that differ by `seed`."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([(x * 7 + seed * 31) % 256, (y * 5 + seed * 17) % 256, (x + y + seed) % 256], -1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(out, format, **save)
    return out.getvalue()


def rotated(orientation: int, height: int = 20, width: int = 30, format: str = "JPEG", seed: int = 0) -> bytes:
    """A picture stored as height x width whose EXIF data ask for `orientation`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(height, width, format, seed=seed, exif=exif.tobytes())


def sample(
    name: str = "a.jpg",
    boxes_px: Sequence[Sequence[float]] = ((3, 2, 9, 12),),
    labels: Sequence[str] = (),
    height: int = 20,
    width: int = 30,
    image: bytes | Path | None = None,
    **more,
) -> Sample:
    """A sample with boxes [xmin, ymin, xmax, ymax] in pixels."""
    boxes = np.array(boxes_px, float).reshape(-1, 4)
    yxyx = boxes[:, [1, 0, 3, 2]] / [height, width, height, width]
    labels = tuple(labels) or ("face",) * len(boxes)
    if image is None:
        image = picture(height, width, "PNG" if name.endswith(".png") else "JPEG", seed=sum(map(ord, name)))
    return Sample(image, name, height, width, yxyx, labels, **more)


def dataset(*samples: Sample, parts: dict[str, str] | None = None, labels: Sequence[str] = ()) -> Dataset:
    found = tuple(labels) or tuple(sorted({n for s in samples for n in s.labels}))
    return Dataset("toy", "test", tuple(samples), (), Path("toy"), found, (), parts or {})


def wider_folder(folder: Path) -> Path:
    """A data set in WIDER FACE's layout: two training pictures, the second without a face, and one for
    validation.
    """
    for part, name, seed in (
        ("train", "0--A/a.jpg", 1),
        ("train", "0--A/b.jpg", 2),
        ("val", "1--B/c.jpg", 3),
    ):
        path = folder / f"WIDER_{part}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(100, 120, seed=seed))
    split = folder / "wider_face_split"
    split.mkdir()
    (split / "wider_face_train_bbx_gt.txt").write_text(
        "0--A/a.jpg\n3\n10 20 60 55 0 0 0 0 0 0 \n1 2 30 40 1 0 0 0 2 1 \n5 5 0 7 2 0 0 1 0 0\n"
        "0--A/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
    )
    (split / "wider_face_val_bbx_gt.txt").write_text("1--B/c.jpg\n1\n50 40 50 60 0 0 0 0 0 0 \n")
    return folder
