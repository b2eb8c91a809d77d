"""The four data scripts of the face tutorial, with its folders below ./data and its filter.

data/WIDER_{train,val}/images, data/wider_face_split      down_data
data/tf_wider_{train,val}/images, .../annotations         data_to_pascal_xml
data/tf_wider_train/train.csv, data/tf_wider_val/val.csv  xml_to_csv
the --output_path                                         generate_tfrecord
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from mirilla.console import echo, progress, warn
from mirilla.data import csv_table, filters, formats, text, tfrecord, voc, widerface
from mirilla.data.adapt import adapt
from mirilla.data.annotations import Annotations, Entry, build
from mirilla.data.convert import check_labels
from mirilla.data.dataset import EVAL, TRAIN, Dataset
from mirilla.data.fetch import MIRRORS, WIDER_FACE, fetch_widerface
from mirilla.data.names import PictureFinder
from mirilla.data.output import Output, pixel_text
from mirilla.data.read import read_dataset
from mirilla.data.sample import Sample
from mirilla.data.split import with_eval_share
from mirilla.errors import DataError, UsageError
from mirilla.files import explaining
from mirilla.findings import NOTE
from mirilla.labels import LabelMap, label_map_text, load_label_map
from mirilla.tf1.flags import Values
from mirilla.tf1.own_files import OwnFiles

DATA = Path("data")
PARTS = {"train": TRAIN, "val": EVAL}  # word in the tutorial's names -> part of a data set
SPLIT = "wider_face_split"
FOLDERS = ("WIDER_train", "WIDER_val", SPLIT)
LABEL_MAP = "face_label.pbtxt"
LABEL = widerface.LABEL
_EVAL_SHARE = 0.2  # of --from photos that have no split
_MAX_WARNINGS = 5


def down_data(values: Values) -> int:
    """Fill data/ with WIDER FACE, or with photos that the user has.

    Raises:
        DataError, DownloadError: the photos cannot be read or downloaded.
    """
    with explaining(DATA):
        DATA.mkdir(exist_ok=True)
    given = values.text("from")
    if not given:
        _download(None)
    else:
        source = Path(given)
        if not source.is_dir():
            raise DataError(f"--from {source}: no such folder.", "Give the folder with the photos or the .zip files.")
        if any((source / archive.name).is_file() for archive in WIDER_FACE):
            _download(source)
        elif (source / SPLIT).is_dir():
            _take_folders(source, copy=values.switch("copy"))
        else:
            _convert(source)
    with OwnFiles(DATA) as own:
        if not (DATA / LABEL_MAP).exists():
            own.write(DATA / LABEL_MAP, label_map_text(LabelMap.from_names([LABEL])).encode())
            echo(f"{DATA / LABEL_MAP}: the label map, with the class '{LABEL}'")
    echo("note: ssd_mobilenet_v1_coco_11_06_2017 is not downloaded: the guide does not use it.")
    return 0


def _download(archives: Path | None) -> None:
    """Download and unpack WIDER FACE, or unpack the user's archives."""
    echo("WIDER FACE is for research; the rights to the photos belong to their owners.")
    mirrors = MIRRORS if archives is None else ()
    fetch_widerface(DATA, mirrors=mirrors, from_dir=archives, progress=progress, echo=echo)


def _take_folders(source: Path, *, copy: bool) -> None:
    """Link or copy the folders of a data set in WIDER FACE's layout."""
    for name in FOLDERS:
        target = DATA / name
        if target.exists():
            echo(f"{target}: already there.")
        elif (source / name).is_dir():
            with explaining(target):
                if copy:
                    part = _new_part(name)
                    shutil.copytree(source / name, part)
                    os.replace(part, target)
                else:
                    target.symlink_to((source / name).resolve(), target_is_directory=True)
            echo(f"{target}: {'copied' if copy else 'linked'} from {source}.")


def _convert(source: Path) -> None:
    """Copy a data set of any format that Mirilla reads into WIDER FACE's layout."""
    if (DATA / SPLIT).exists():
        echo(f"{DATA / SPLIT}: already there; {source} is not read.")
        return
    dataset = read_dataset(source)
    _warn(dataset)
    if not dataset.parts:
        dataset = with_eval_share(dataset, _EVAL_SHARE)
        echo(f"{source}: no split of its own; a share of {_EVAL_SHARE:g} is for evaluation.")
    dataset, _ = adapt(dataset, formats.BY_NAME["widerface"])
    part = _new_part("from")
    with explaining(DATA):
        widerface.save(Output(part), dataset, {LABEL: 1})
        for name in FOLDERS:  # the annotations last, so that an interrupted run is not taken for a finished one
            if (part / name).exists():
                os.replace(part / name, DATA / name)
        part.rmdir()
    echo(f"{source}: {len(dataset)} pictures copied to {DATA}.")


def _new_part(name: str) -> Path:
    """A temporary folder in data/; what an interrupted run left in it is removed."""
    part = DATA / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    return part


def data_to_pascal_xml(values: Values) -> int:
    """Write an XML file and a copy of the photo for each picture with a face that the tutorial's filter keeps.

    Raises:
        DataError: there are no annotations, two pictures have the same name, or a file must not be replaced.
    """
    with OwnFiles(DATA) as own:
        for word in _words_with(DATA / SPLIT, "wider_face_{}_bbx_gt.txt", "Run 'mirilla tf1 down_data' first."):
            dataset = read_dataset(DATA / SPLIT / f"wider_face_{word}_bbx_gt.txt", format="widerface")
            _warn(dataset)
            dataset = filters.tutorial(dataset)
            echo(f"{word}: {dataset.notes[-1]}")
            samples = [sample for sample in dataset.samples if len(sample)]
            _write_pictures(own, DATA / f"tf_wider_{word}", word, samples)
    return 0


def _write_pictures(own: OwnFiles, folder: Path, word: str, samples: list[Sample]) -> None:
    stems: dict[str, str] = {}
    with progress(f"Writing {folder}", len(samples), "pictures") as bar:
        for sample in samples:
            path = PurePosixPath(sample.filename)
            if path.stem in stems:
                raise DataError(
                    f"{sample.where}: the pictures {stems[path.stem]} and {path} have the same name, but go into one "
                    "folder.",
                    "Rename one of them.",
                )
            stems[path.stem] = sample.filename
            own.write(folder / "annotations" / "xmls" / f"{path.stem}.xml", xml_of(sample).encode())
            with explaining(Path(sample.filename)):
                own.write(folder / "images" / path.name, sample.encoded())
            bar.advance(1)
    own.write(folder / "annotations" / f"{word}.txt", "".join(f"{stem}\n" for stem in stems).encode())
    echo(f"{folder}: {len(samples)} pictures with their XML files")


def xml_of(sample: Sample) -> str:
    """A sample as the tutorial writes it. The original xml_to_csv finds the box by its position in <object>."""
    name = PurePosixPath(sample.filename).name
    lines = [
        '<annotation verified="yes">',
        "  <folder>images</folder>",
        f"  <filename>{escape(name)}</filename>",
        f"  <path>{escape(f'images/{name}')}</path>",
        "  <source><database>WIDER FACE</database></source>",
        f"  <size><width>{sample.width_px}</width><height>{sample.height_px}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for label, box in zip(sample.labels, sample.boxes_px_xyxy.tolist(), strict=True):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), map(pixel_text, box), strict=True)
        lines += [
            "  <object>",
            f"    <name>{escape(label)}</name>",
            "    <pose>Unspecified</pose>",
            "    <truncated>0</truncated>",
            "    <difficult>0</difficult>",
            "    <bndbox>" + "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners) + "</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def xml_to_csv(values: Values) -> int:
    """Write a table of the boxes in the XML files of each part.

    Raises:
        DataError: there are no XML files, or one of them cannot be read.
    """
    with OwnFiles(DATA) as own:
        words = _words_with(DATA, "tf_wider_{}/annotations/xmls", "Run 'mirilla tf1 data_to_pascal_xml' first.")
        for word in words:
            folder = DATA / f"tf_wider_{word}"
            rows = [row for entry in _entries(folder) for row in _rows(entry)]
            content = io.StringIO()
            csv.writer(content, lineterminator="\n").writerows([csv_table.COLUMNS, *rows])
            own.write(folder / f"{word}.csv", content.getvalue().encode())
            echo(f"{folder / f'{word}.csv'}: {len(rows)} boxes")
    return 0


def _entries(folder: Path) -> Iterator[Entry]:
    for path in sorted((folder / "annotations" / "xmls").glob("*.xml")):
        try:
            with explaining(path):
                entry, _ = voc.parse(path.read_bytes(), str(path), PictureFinder(folder / "images"), path.stem)
            yield entry
        except ValueError as error:
            raise DataError(f"{path}: {error}.", "Correct the file, or remove it.") from None


def _rows(entry: Entry) -> Iterator[list[str]]:
    if entry.declared_px is None:
        raise DataError(f"{entry.where}: <size> is missing.", "Add <size> with <width> and <height>.")
    height_px, width_px = entry.declared_px
    for label, box in zip(entry.labels, entry.boxes_xyxy.tolist(), strict=True):
        yield [entry.filename, str(width_px), str(height_px), label, *map(pixel_text, box)]


def generate_tfrecord(values: Values) -> int:
    """Write the photos and boxes of a table as a TFRecord file.

    Raises:
        DataError: the table cannot be read, a class is not in the label map, or the file must not be replaced.
    """
    table, folder, out = (Path(values.text(name)) for name in ("csv_input", "images_path", "output_path"))
    if not folder.is_dir():
        raise DataError(f"--images_path={folder}: no such folder.", "Give the folder of the photos.")
    if out.is_dir():
        raise UsageError(f"--output_path={out}: this is a folder.", "Name a file, such as data/train.record.")
    entries, problems = csv_table.parse(text.read(table), str(table), (folder, folder / "images"))
    dataset = build(Annotations("csv", table, tuple(entries), tuple(problems), split_folder=folder))
    _warn(dataset)
    named = values.text("label_map")
    labels = load_label_map(named) if named else LabelMap.from_names([LABEL])
    ids = {name: label.id for label in labels for name in (label.display_name, label.name) if name}
    check_labels(dataset, ids)
    dataset, changes = adapt(replace(dataset, parts={}), formats.BY_NAME["tfrecord"])
    _warn(replace(dataset, problems=tuple(changes)))
    with OwnFiles(out.parent) as own:
        own.require_writable(out)
        with progress(f"Writing {out}", len(dataset), "pictures") as bar:
            tfrecord.write_tfrecords(dataset.samples, ids, out, advance=bar.advance)
        own.add(out)
    echo(f"{out}: {len(dataset)} pictures with {dataset.boxes} boxes")
    return 0


def _words_with(folder: Path, pattern: str, remedy: str) -> list[str]:
    """The parts ("train", "val") whose file or folder exists; a missing one is noted.

    Raises:
        DataError: both are missing.
    """
    found = [word for word in PARTS if (folder / pattern.format(word)).exists()]
    if not found:
        raise DataError(f"{folder / pattern.format('train')}: no such file or folder.", remedy)
    for word in PARTS:
        if word not in found:
            warn(f"{folder / pattern.format(word)} is missing; '{word}' is left out.")
    return found


def _warn(dataset: Dataset) -> None:
    for finding in dataset.problems[:_MAX_WARNINGS]:
        (echo if finding.severity == NOTE else warn)(str(finding))
    if len(dataset.problems) > _MAX_WARNINGS:
        warn(f"{len(dataset.problems) - _MAX_WARNINGS} more findings.")
