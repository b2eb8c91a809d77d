"""A drawn data set in WIDER FACE's layout, to try Mirilla without downloading anything."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from mirilla import files
from mirilla.toy.backgrounds import KINDS
from mirilla.toy.scene import Face, draw_scene


def write(
    folder: str | Path,
    *,
    train: int = 400,
    val: int = 60,
    seed: int = 1,
    drawn: Callable[[int], None] | None = None,
) -> Path:
    """Write the data set.

    Args:
        folder: created if missing; receives `wider_face_split/wider_face_{train,val}_bbx_gt.txt` and
            `WIDER_{train,val}/images/<event>/<name>.jpg`.
        train, val: numbers of pictures.
        seed: determines all pictures; picture i of a split does not depend on the number of pictures.
        drawn: called with 1 after each picture.

    Returns:
        The folder.

    Raises:
        MirillaError: the folder cannot be written.
    """
    folder = Path(folder)
    for split, count in (("train", train), ("val", val)):
        lines: list[str] = []
        for index in range(count):
            scene = draw_scene(seed, split, index)
            event = f"{KINDS.index(scene.kind)}--{scene.kind}"
            name = f"{event}/{event.replace('--', '_')}_{split}_{index}.jpg"
            encoded = io.BytesIO()
            scene.picture.save(encoded, "JPEG", quality=scene.jpeg_quality)
            path = folder / f"WIDER_{split}" / "images" / name
            with files.explaining(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded.getvalue())  # not atomic: the annotations, written last, are
            lines += [name, str(len(scene.faces))]
            lines += [_line(face) for face in scene.faces] or [" ".join(["0"] * 10)]
            if drawn is not None:
                drawn(1)
        annotations = folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        files.write_text(annotations, "".join(f"{line}\n" for line in lines))
    return folder


def _line(face: Face) -> str:
    return (
        f"{face.left_px} {face.top_px} {face.width_px} {face.height_px} {face.blur} {face.expression} "
        f"{face.illumination} {face.invalid} {face.occlusion} {face.pose} "
    )
