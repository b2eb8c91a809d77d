"""Run Mirilla on a folder of small odd inputs, as labelling tools, exporters and people leave them, and make a table.

    python tools/cases.py ../shared/cases --out benchmarks/cases.md --before OLD_CHECKOUT

Each case is a folder with data/ and a README that says what is right. It is run through the commands that fit it: a
data set is checked, and converted to CSV, so that the boxes are seen; models, label maps and configs go through the
verbs that take them. The judgement is automatic: RIGHT has, for each case, what its output must and must not contain;
a traceback is never right. Without --before the table has no column 'before'. --only NAME runs single cases, and shows
their whole output.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

BOX = r"face 50 30 110 110"
REMEDY = r"!^\S+: exit [^0](?!.*Remedy)"  # every error has a remedy
SECONDS = 300
SHOWN = 420  # characters of an output in the table
HEADING = """# Odd inputs

What Mirilla makes of small inputs as labelling tools, exporters and people leave them, before and now. Made by
`python tools/cases.py CASES --before OLD_CHECKOUT --out benchmarks/cases.md`; the inputs are not part of the project.
A cell has the exit code and the messages, shortened, or the boxes and parts as `mirilla data convert --to csv` writes
them; unless a case is about something else, the one true box is `face 50 30 110 110`. The last column is judged by
what the output must and must not contain (`RIGHT` in the script).

"""
_PROGRESS = re.compile(
    r"^(Reading|Checking|Converting|Writing|Findings$|severity|-{3}|\s*$)|^(error|warning|note) {2,}\S+ +\d+$"
)
_COUNTS = re.compile(r"^\d+ usable pictures")


@dataclass(frozen=True)
class Run:
    """One command's exit code and output; `name` says what it was run on, if a case has several."""

    code: int
    output: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name + ': ' if self.name else ''}exit {self.code}\n{self.output}"


def dataset(case: Case) -> list[Run]:
    """Check a data set and list its boxes."""
    return case.check_and_list(case.data)


@dataclass(frozen=True)
class Case:
    """A case to run with one checkout.

    Attributes:
        folder: the case's folder.
        source: src/ of the checkout.
        work: an empty folder.
    """

    folder: Path
    source: Path
    work: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, *words: str | Path, name: str = "") -> Run:
        """Run a mirilla command in the work folder."""
        command = [sys.executable, "-m", "mirilla", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        try:
            done = subprocess.run(
                command,
                cwd=self.work,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Run(-1, f"Traceback: no end after {SECONDS} s", name)
        return Run(done.returncode, self.without_folders(f"{done.stdout}\n{done.stderr}"), name)

    def without_folders(self, text: str) -> str:
        """The text without this machine's paths."""
        return text.replace(str(self.work), "OUT").replace(f"{self.folder}/", "")

    def check_and_list(self, source: Path | str, *words: str) -> list[Run]:
        """'data check', and the rows of 'data convert --to csv'."""
        checked = self.run("data", "check", source, *words)
        converted = self.run("data", "convert", source, self.work / "csv", "--to", "csv", *words)
        boxes = [" ".join([row[0], *row[3:]]) for row in _rows(self.work / "csv" / "annotations.csv")[1:]]
        parts = [" ".join(row) for row in _rows(self.work / "csv" / "split.csv")]
        listed = "\n".join([*(f"box: {box}" for box in boxes), *(f"part: {part}" for part in parts)])
        trace = converted.output if "Traceback" in converted.output else ""
        return [Run(checked.code, f"{checked.output}\n{listed}\n{trace}", checked.name)]


def _rows(table: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table.read_text()))) if table.exists() else []


def of_subfolder(name: str) -> Callable[[Case], list[Run]]:
    return lambda case: case.check_and_list(case.data / name)


def round_trips(case: Case) -> list[Run]:
    """Convert to every format and back."""
    runs = case.check_and_list(case.data)
    for format in ("voc", "coco", "csv", "yolo", "tfrecord", "widerface"):
        words = ("--rename", "Gesicht ü=face") if format == "widerface" else ()
        made = case.run("data", "convert", case.data, case.work / format / "made", "--to", format, *words)
        back = case.run("data", "check", case.work / format / "made", name=format)
        runs.append(Run(made.code or back.code, back.output if not made.code else made.output, format))
    return runs


def run_it(case: Case) -> list[Run]:
    """'mirilla run' with a few steps; the output has findings.txt too."""
    words = ("--steps", "2", "--batch-size", "2", "--size", "96", "--start", "scratch", "--device", "cpu")
    done = case.run("run", case.data, "--out", case.work / "run", *words)
    findings = case.work / "run" / "findings.txt"
    text = case.without_folders(findings.read_text()) if findings.exists() else ""
    return [Run(done.code, f"findings.txt: {text}\n{done.output}")]


def detect(case: Case) -> list[Run]:
    return [case.run("detect", case.data)]


def models(case: Case) -> list[Run]:
    photo = case.folder.parent / "csv_vott" / "data" / "a.jpg"
    return [case.run("detect", photo, "--model", path, name=path.name) for path in sorted(case.data.iterdir())]


def checkpoint(case: Case) -> list[Run]:
    config = case.folder.parent / "config_paths" / "data" / "bom.config"
    return [case.run("import", case.data / "ckpt-0", "--pipeline-config", config, "--out", case.work / "imported")]


def label_maps(case: Case) -> list[Run]:
    source = case.folder.parent / "csv_vott" / "data"
    return [
        case.run("data", "check", source, "--label-map", path, name=path.name) for path in sorted(case.data.iterdir())
    ]


def configs(case: Case) -> list[Run]:
    """Train a step with each pipeline.config, whose relative paths exist."""
    source = case.folder.parent / "csv_vott" / "data"
    case.run("data", "convert", source, case.work / "made", "--to", "tfrecord")
    records = case.work / "data" / "records"
    records.mkdir(parents=True)
    (case.work / "data" / "label_map.pbtxt").write_text("item { id: 1 name: 'face' }\n")
    for name in ("train.tfrecord", "eval.tfrecord", "train.record-00000-of-00010"):
        (records / name).write_bytes((case.work / "made" / "data.tfrecord").read_bytes())
    runs = []
    for path in sorted(case.data.iterdir()):
        words = ("--pipeline-config", path, "--model-dir", case.work / path.stem, "--num-train-steps", "1")
        runs.append(case.run("train", *words, name=path.name))
    return runs


VERBS: dict[str, Callable[[Case], list[Run]]] = {
    "config_paths": configs,
    "csv_data_folder_raccoon": of_subfolder("data"),
    "heic_photos": detect,
    "labelmaps": label_maps,
    "model_files": models,
    "odd_names": round_trips,
    "run_false_notes": run_it,
    "run_photos_only": run_it,
    "tf2_checkpoint": checkpoint,
}

# Case -> regular expressions that its output must contain, and (with '!' first) must not.
RIGHT: dict[str, tuple[str, ...]] = {
    "coco_bbox_xyxy": ("box-reaches-out",),
    "coco_crowd_rle_gaps": ("4 usable pictures, 3 boxes", "job1/a.jpg", "job2/a.jpg"),
    "coco_dup_category_names": ("2 categories have the name .face.", " 1 labels"),
    "coco_dup_image_ids": ("error.*id 1|image 1",),
    "coco_empty_bbox": (rf"a.jpg {BOX}|bbox is (empty|\[\])",),
    "coco_nan_width": (rf"{BOX}|error.*image",),
    "coco_panels_nan_null": ("annotation", r"box: "),
    "coco_string_ids": (rf"{BOX}|error.*(text|string|kind)",),
    "coco_url_and_abs": (rf"(b.jpg|my photo.jpg).* {BOX}|missing-picture",),
    "coco_utf8_sig_list": ("result",),
    "config_paths": (
        REMEDY,
        "!bom.config: exit [^0]",
        "!crlf.config: exit [^0]",
        "!ftv1.config: exit [^0]",
        r"win_users.config: exit [^0].*(backslash|\\\\)",
        r"win_tensorflow1.config: exit [^0].*(backslash|\\\\)",
        "aug_block.config: exit [^0].*data_augmentation_options",
        "float_batch.config: exit [^0].*Remedy",
        "unquoted.config: exit [^0].*Remedy",
        "nc90.config: .*num_classes",
    ),
    "createml_json": ("CreateML",),
    "csv_backslash": (rf"faces/a.jpg {BOX}",),
    "csv_data_folder_raccoon": (
        rf"train1.jpg {BOX}",
        rf"test1.jpg {BOX}",
        "part: train1.jpg train",
        "part: test1.jpg test",
    ),
    "csv_duplicate_header_rows": ("line 3", "header", rf"a.jpg {BOX}", rf"b.jpg {BOX}"),
    "csv_images_in_train_folder": (rf"train1.jpg {BOX}", rf"test1.jpg {BOX}"),
    "csv_mac_cr": (rf"a.jpg {BOX}",),
    "csv_makesense": (rf"a.jpg {BOX}|not a header",),
    "csv_no_ext": (rf"a.jpg {BOX}",),
    "csv_normalised": ("look normalised", "!box: "),
    "csv_nul_bytes": ("line 3.*NUL", rf"a.jpg {BOX}"),
    "csv_openimages": ("lacks the column filename",),
    "csv_retinanet_headerless": (rf"a.jpg {BOX}", "2 usable pictures"),
    "csv_semicolon": (rf"a.jpg {BOX}",),
    "csv_unbalanced_quote": ("line 2.*quote is not closed",),
    "csv_utf16": (rf"a.jpg {BOX}",),
    "csv_vott": (rf"a.jpg {BOX}",),
    "csv_xywh": ("lacks the columns xmin, ymin, xmax, ymax",),
    "cvat_coco": (rf"a.jpg {BOX}",),
    "cvat_images_xml": ("CVAT", "COCO|Pascal VOC"),
    "cvat_ultralytics": (rf"{BOX}",),
    "cvat_yolo_1_1": (rf"{BOX}|CVAT|Darknet",),
    "heic_photos": ("exit [^0]", "HEIC", "IMG_0001.HEIC", "IMG_0002.heic", "IMG_0003.jpg"),
    "labelimg_voc_edje": (
        rf"train1.jpg {BOX}",
        rf"test1.jpg {BOX}",
        "part: .*train1.jpg train",
        "part: .*test1.jpg test",
    ),
    "labelimg_yolo_flat": (rf"a.jpg {BOX}",),
    "labelmaps": (REMEDY, "bom.pbtxt: exit 0", "one_line.pbtxt: exit 0"),
    "labelme_json": ("labelme",),
    "labelstudio_coco_backslash": (BOX, "2 usable pictures"),
    "labelstudio_json": ("Label Studio",),
    "labelstudio_yolo": (BOX,),
    "model_files": (
        "lfs_frozen_inference_graph.pb: exit [^0].*LFS",
        "lfs.binaryproto: exit [^0].*LFS",
        "html_frozen_inference_graph.pb: exit [^0].*(HTML|web page)",
        "empty.pb: exit [^0].*empty",
        "saved_model.pb: exit [^0].*SavedModel",
        "model.keras: exit [^0].*Keras",
        "yolov5n-face.onnx: exit [^0].*ONNX",
        "cut_short.pb: exit [^0]",
        "cut_short.binaryproto: exit [^0]",
    ),
    "odd_names": (
        *(f"{name}: exit 0.*9 usable pictures, 9 boxes" for name in ("voc", "coco", "csv", "yolo", "tfrecord")),
    ),
    "pictures_odd": ("heic.jpg", "empty.jpg", "page.jpg", "t.jpg", "box: a.jpg"),
    "retinaface_label_txt": ("RetinaFace",),
    "roboflow_coco_supercategory": (" 1 labels|faces.*no box", BOX),
    "roboflow_darknet": (rf"{BOX}|Darknet",),
    "roboflow_tf_csv": (
        rf"train1.jpg {BOX}",
        rf"valid1.jpg {BOX}",
        "part: .*train1.jpg train",
        "part: .*valid1.jpg eval",
    ),
    "run_false_notes": ("exit 0", "!no annotation names this picture", "!no annotation lists this picture"),
    "run_photos_only": ("exit [^0]", "label"),
    "split_csv_header": ("part: a.jpg train", "part: b.jpg eval"),
    "supervisely": ("Supervisely",),
    "tf2_checkpoint": ("TF2|TensorFlow 2|Keras",),
    "tfrecord_gzip": (BOX,),
    "tfrecord_int_boxes": ("has integers, but must have floats",),
    "tfrecord_label_only_labelmap": (BOX,),
    "tfrecord_label_zero": ("number 0", "'Face '"),
    "tfrecord_lfs_pointer": ("LFS",),
    "tfrecord_no_size_gray": ("2 usable pictures, 1 boxes", BOX),
    "tfrecord_pixels": ("look like pixels", "!box-outside"),
    "tfrecord_roboflow_folders": ("3 usable pictures, 3 boxes", "train", "eval", "test"),
    "tfrecord_slim_bbox_label": (BOX,),
    "tfrecord_text_one_string": ("2 boxes but 1 labels",),
    "tfrecord_vott": ("2 usable pictures, 2 boxes", "face"),
    "voc_duplicate_in_subfolders_flat": (rf"p1/a.jpg {BOX}", rf"p2/a.jpg {BOX}"),
    "voc_entity": ("bad-annotation", "&amp;"),
    "voc_exif_labelimg": ("face 40 50 120 110",),
    "voc_gb2312": ("2 usable pictures, 2 boxes", "人脸|脸"),
    "voc_gbk_bytes_no_header": ("bad-annotation", "not UTF-8", "1 usable picture"),
    "voc_makesense": (rf"a.jpg {BOX}", "!difficult"),
    "voc_name_case_space": ("similar-labels",),
    "voc_nested_same_names": (rf"job1/a.jpg {BOX}", rf"job2/a.jpg {BOX}", "part: job1/a.jpg train"),
    "voc_nfc_nfd": ("2 usable pictures, 2 boxes",),
    "voc_no_size": (rf"a.jpg {BOX}",),
    "voc_other_root": (
        "a.xml.*bad-annotation",
        "b.xml.*bad-annotation",
        "!usable pictures, 0 boxes, 0 labels: 0 errors",
    ),
    "voc_robndbox": ("robndbox.*bad-annotation", rf"b.jpg {BOX}"),
    "voc_same_filename_copy": (rf"a.jpg {BOX}", "b.jpg face 20 20 60 60"),
    "voc_size_zero_wrong_ext": (rf"a\.\w+ {BOX}", rf"b\.\w+ {BOX}"),
    "voc_swapped_corners": ("box-inverted", "box-empty", "box-reaches-out"),
    "voc_train_valid_same_names": (rf"train/a.jpg {BOX}", rf"valid/a.jpg {BOX}"),
    "voc_unknown_encoding": ("a.xml.*encoding.*bad-annotation", rf"b.jpg {BOX}"),
    "voc_utf16_bom": (rf"a.jpg {BOX}", rf"b.jpg {BOX}"),
    "voc_windows_path_filename": ("face 50.5 30.25 110 110",),
    "widerface_kaggle_nested": (BOX,),
    "widerface_nested_images_only": (BOX,),
    "widerface_variants": ("3 usable pictures, 2 boxes",),
    "yaml_bad_types": (BOX,),
    "yaml_colab_abs": (rf"/content.*|{BOX}",),
    "yaml_lists_windows": ("3 usable pictures", "part: .* train", "part: .* eval"),
    "yaml_names_multiline": ("no, mask", "2 labels"),
    "yaml_names_number": ("exit [^0]", "names"),
    "yaml_nc_mismatch": ("nc",),
    "yaml_path_datasets": (BOX,),
    "yaml_roboflow_up": (BOX, "part: .* train", "part: .* eval"),
    "yolo5face_landmarks": (rf"({BOX}.*){{2}}",),
    "yolo_commas": ("line 1",),
    "yolo_confidence_column": (rf"{BOX}|confidence",),
    "yolo_no_labels_at_all": (rf"{BOX}|(error|warning).*label",),
    "yolo_orphan_label": ("b.txt",),
    "yolo_pixel_coords": ("look like pixels",),
    "yolo_pose_kpt_shape": (BOX,),
    "yolo_txt_beside_in_images": (rf"{BOX}|x.txt",),
}


def outcome(case: Case) -> list[Run]:
    """The exit codes and the telling lines of a case's commands."""
    runs = VERBS.get(case.folder.name, dataset)(case)
    return [replace(run, output=_telling(run.output)) for run in runs]


def _telling(output: str) -> str:
    """The output without progress; of a traceback, only its last line."""
    lines = [line.rstrip() for line in output.replace("\r", "\n").splitlines()]
    if any(line.startswith("Traceback") for line in lines):
        at = next(i for i, line in enumerate(lines) if line.startswith("Traceback"))
        last = [line for line in lines[at:] if re.match(r"[\w.]+(Error|Exception)\b|Traceback: ", line)]
        lines = [*lines[:at], f"Traceback: {last[-1] if last else '?'}"]
    return "\n".join(line for line in lines if line and not _PROGRESS.match(line))


def is_right(name: str, runs: Sequence[Run]) -> bool:
    """Whether an outcome has all that is right for a case."""
    text = "\n".join(str(run).replace("\n", " ⏎ ") for run in runs)  # a line for each command
    if "Traceback" in text:
        return False
    return all(
        not re.search(pattern[1:], text, re.M) if pattern.startswith("!") else re.search(pattern, text, re.M)
        for pattern in RIGHT[name]
    )


def outcomes(cases: Sequence[Path], source: Path, threads: int) -> dict[str, list[Run]]:
    """Case -> outcome with the checkout whose src/ is `source`."""

    def one(folder: Path) -> tuple[str, list[Run]]:
        with tempfile.TemporaryDirectory() as work:
            return folder.name, outcome(Case(folder, source.resolve(), Path(work)))

    with ThreadPoolExecutor(threads) as pool:
        return dict(pool.map(one, cases))


def table(cases: Sequence[Path], before: dict[str, list[Run]], now: dict[str, list[Run]]) -> str:
    """The table in Markdown: a row for each case, or for each file of a case that has several."""
    columns = ["case", "before", "now", "right"] if before else ["case", "now", "right"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for case in cases:
        runs, old = now[case.name], {run.name: run for run in before.get(case.name, [])}
        judgement = "yes" if is_right(case.name, runs) else "no"
        for run in runs:
            name = f"`{case.name}`" if run is runs[0] else ""
            cells = [f"{name} {run.name}".strip(), *([_cell(old.get(run.name))] if before else []), _cell(run)]
            lines.append(f"| {' | '.join(cells)} | {judgement if run is runs[0] else ''} |")
    return "\n".join(lines) + "\n"


def _cell(run: Run | None) -> str:
    if run is None:
        return ""
    lines = [f"exit {run.code}", *(line.strip() for line in run.output.splitlines() if not _COUNTS.match(line))]
    lines.sort(key=lambda line: (not line.startswith("exit "), not line.startswith(("mirilla ", "Remedy: "))))
    short = "; ".join(lines)
    short = short if len(short) <= SHOWN else f"{short[:SHOWN]}..."
    return re.sub(r"([|<>*_`\\])", r"\\\1", short)


def main() -> None:
    """Run the cases and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", type=Path, help="folder of cases")
    parser.add_argument("--before", type=Path, help="an older checkout, for the column 'before'")
    parser.add_argument("--only", nargs="*", help="names of single cases: show their whole output")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    cases = sorted(path.resolve() for path in options.cases.iterdir() if (path / "data").is_dir())
    if options.only is not None:
        cases = [case for case in cases if case.name in options.only]
    now = outcomes(cases, Path(__file__).resolve().parents[1] / "src", options.threads)
    wrong = [case.name for case in cases if not is_right(case.name, now[case.name])]
    if options.only is not None:
        for name, runs in now.items():
            print(f"== {name}: {'WRONG' if name in wrong else 'right'}", *runs, "", sep="\n")
        return
    before = outcomes(cases, options.before / "src", options.threads) if options.before else {}
    text = f"{HEADING}Right: {len(cases) - len(wrong)} of {len(cases)}.\n\n{table(cases, before, now)}"
    if options.out:
        options.out.write_text(text)
    print(f"{len(cases) - len(wrong)} of {len(cases)} right", *(f"not right: {name}" for name in wrong), sep="\n")
    if not options.out:
        print(text)


if __name__ == "__main__":
    main()
