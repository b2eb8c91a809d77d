"""Small data sets for tests of the main job."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def csv_set(folder: Path, rows: list[str], pictures: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(pictures):
        Image.new("RGB", (40, 30), (10 * i % 255, 90, 0)).save(folder / "images" / name)
    (folder / "annotations.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\n" + "\n".join(rows) + "\n"
    )
    return folder


def make(tmp_path: Path, name: str, count: int, label: str = "face") -> Path:
    pictures = [f"{name}{i}.png" for i in range(count)]
    return csv_set(tmp_path / name, [f"{p},40,30,{label},5,5,20,20" for p in pictures], pictures)
