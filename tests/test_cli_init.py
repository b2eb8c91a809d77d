"""mirilla init: the files it writes, the commands it names, and what it refuses."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from mirilla import config
from mirilla.cli import main
from mirilla.data import read_dataset
from mirilla.job.inputs import read_inputs
from mirilla.job.options import JobOptions
from mirilla.labels import load_label_map


@pytest.fixture
def photos(tmp_path):
    """A CSV data set of 12 pictures with one box each: 8 cats, 4 dogs; split.csv puts 3 aside."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    rng = np.random.default_rng(0)
    for i in range(12):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(stream, "PNG")
        (folder / "images" / f"{i}.png").write_bytes(stream.getvalue())
        rows.append(f"{i}.png,32,24,{'dog' if i % 3 == 0 else 'cat'},2,2,20,20")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    return folder


def split(folder):
    (folder / "split.csv").write_text("".join(f"{i}.png,{'eval' if i < 3 else 'train'}\n" for i in range(12)))


def run(*arguments) -> int:
    return main.main(["init", *map(str, arguments)])


def test_it_writes_config_and_label_map(photos, tmp_path, capsys):
    split(photos)
    out = tmp_path / "new" / "pipeline.config"
    assert run(photos, "--out", out, "--steps", 50000, "--batch-size", 8, "--depth-multiplier", 0.25) == 0
    pipeline = config.load(out)
    labels = load_label_map(out.with_name("label_map.pbtxt"))
    assert labels.names == ("cat", "dog")
    expected = config.sample(
        2,
        out.with_name("records") / "train.tfrecord",
        out.with_name("records") / "eval.tfrecord",
        out.with_name("label_map.pbtxt"),
        steps=50000,
        batch_size=8,
        depth_multiplier=0.25,
        num_eval_examples=3,
    )
    assert pipeline == expected
    assert sorted(p.name for p in out.parent.iterdir()) == ["label_map.pbtxt", "pipeline.config"]
    printed = capsys.readouterr().out
    assert f"mirilla data convert {photos} {out.with_name('records')} --to tfrecord\n" in printed
    assert f"mirilla train --pipeline-config {out}" in printed


def test_convert_writes_the_records_it_names(photos, tmp_path):
    out = tmp_path / "new" / "pipeline.config"
    assert run(photos, "--out", out, "--eval-share", 0.3, "--convert", "--letterbox", "--size", 128) == 0
    pipeline = config.load(out)
    count = 0
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader):
        (path,) = reader.tf_record_input_reader.input_path
        count += len(read_dataset(path))
    assert count == 12
    assert pipeline.eval_config.num_examples == len(read_dataset(path))
    resizer = pipeline.model.ssd.image_resizer.keep_aspect_ratio_resizer
    assert (resizer.min_dimension, resizer.max_dimension, resizer.pad_to_max_dimension) == (128, 128, True)


def test_a_split_of_its_own_holds_beside_a_set_for_evaluation(photos, tmp_path, capsys):
    """12 pictures, 3 of them in the data set's part 'eval': 9 are trained on, whatever is measured."""
    split(photos)
    out = tmp_path / "new" / "pipeline.config"
    assert run(photos, "--eval", f"{photos}@eval", "--out", out, "--convert") == 0
    pipeline = config.load(out)
    sizes = [
        len(read_dataset(r.tf_record_input_reader.input_path[0]))
        for r in (pipeline.train_input_reader, pipeline.eval_input_reader)
    ]
    assert sizes == [9, 3]


def test_problems_and_choices_of_reading_are_printed_once(photos, tmp_path, capsys):
    for i in (5, 6):
        (photos / "images" / f"{i}.png").unlink()
    (photos / "other.csv").write_text((photos / "annotations.csv").read_text())
    assert run(photos, "--out", tmp_path / "pipeline.config") == 0
    printed = capsys.readouterr()
    assert printed.out.count("annotations.csv is read (rather than other.csv)") == 1
    assert printed.out.count("Held out for evaluation") == 1
    assert printed.err.count("warning: ") == 1
    assert "5.png does not exist. [missing-picture]; 1 more, 'mirilla data check' lists them" in printed.err


def test_tfrecord_files_are_used_where_they_are(photos, tmp_path, capsys):
    split(photos)
    assert run(photos, "--out", tmp_path / "a" / "pipeline.config", "--convert") == 0
    capsys.readouterr()
    records = tmp_path / "a" / "records"
    out = tmp_path / "b" / "pipeline.config"
    assert run(records, "--out", out) == 0
    pipeline = config.load(out)
    readers = (pipeline.train_input_reader, pipeline.eval_input_reader)
    assert [list(r.tf_record_input_reader.input_path) for r in readers] == [
        [str(records / "train.tfrecord")],
        [str(records / "eval.tfrecord")],
    ]
    assert "convert" not in capsys.readouterr().out
    third = tmp_path / "c" / "pipeline.config"
    assert run(records / "train.tfrecord", "--eval", records / "eval.tfrecord", "--out", third) == 0
    assert config.load(third).train_input_reader.tf_record_input_reader == readers[0].tf_record_input_reader
    assert run(records / "train.tfrecord", "--out", tmp_path / "d" / "pipeline.config") == 2
    assert "--eval" in capsys.readouterr().err


def test_tfrecord_files_in_folders_of_parts(photos, tmp_path):
    split(photos)
    assert run(photos, "--out", tmp_path / "a" / "pipeline.config", "--convert") == 0
    made = tmp_path / "a" / "records"
    exported = tmp_path / "exported" / "v1"  # the only folder in what is given
    for file, folder in (("train", "train"), ("eval", "test")):
        (exported / folder).mkdir(parents=True)
        (made / f"{file}.tfrecord").rename(exported / folder / "Faces.tfrecord")
    out = tmp_path / "b" / "pipeline.config"
    assert run(tmp_path / "exported", "--out", out) == 0
    pipeline = config.load(out)
    readers = (pipeline.train_input_reader, pipeline.eval_input_reader)
    assert [list(r.tf_record_input_reader.input_path) for r in readers] == [
        [str(exported / "train" / "Faces.tfrecord")],
        [str(exported / "test" / "Faces.tfrecord")],
    ]


def test_a_given_label_map_decides(photos, tmp_path, capsys):
    given = tmp_path / "mine.pbtxt"
    given.write_text("item { id: 1 name: 'dog' }\nitem { id: 3 name: 'cat' }\n")
    out = tmp_path / "x" / "pipeline.config"
    assert run(photos, "--out", out, "--label-map", given) == 0
    assert config.load(out).model.ssd.num_classes == 3
    assert load_label_map(out.with_name("label_map.pbtxt")) == load_label_map(given)
    assert f"--label-map {given}" in capsys.readouterr().out
    given.write_text("item { id: 1 name: 'dog' }\n")
    assert run(photos, "--out", tmp_path / "y" / "pipeline.config", "--label-map", given) == 1
    assert "'cat'" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_nothing_is_replaced_unless_forced(photos, tmp_path, capsys):
    out = tmp_path / "pipeline.config"
    out.write_text("precious")
    assert run(photos, "--out", out) == 1
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert not (tmp_path / "label_map.pbtxt").exists()
    assert run(photos, "--out", out, "--force") == 0
    assert config.load(out).model.ssd.num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--batch-size", "0"], 1, "train_config.batch_size"),
        (["--size", "8"], 1, "32 or more"),
        (["--depth-multiplier", "0"], 1, "depth_multiplier"),
        (["--eval-share", "2"], 1, "between 0 and 1"),
        (["--label-map", "nowhere.pbtxt"], 1, "nowhere.pbtxt"),
    ],
)
def test_options_out_of_range(photos, tmp_path, capsys, arguments, code, words):
    assert run(photos, "--out", tmp_path / "z" / "pipeline.config", *arguments) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "z").exists()


def test_a_missing_data_set(tmp_path, capsys):
    assert run(tmp_path / "none", "--out", tmp_path / "pipeline.config") == 1
    error = capsys.readouterr().err
    assert "none" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("extra", [{"id": 9, "name": "mask"}, {"id": 0, "name": "faces", "supercategory": "none"}])
def test_init_its_conversion_and_run_have_the_same_classes(photos, tmp_path, capsys, extra):
    """A class without a box, and Roboflow's category that groups others, are no classes of a detector."""
    (photos / "annotations.csv").unlink()
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(12)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 18, 18]} for i in range(12)]
    categories = [extra, {"id": 1, "name": "face", "supercategory": "faces"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (photos / "result.json").write_text(json.dumps(content))
    out = tmp_path / "new" / "pipeline.config"
    assert run(photos, "--out", out) == 0
    printed = capsys.readouterr().out
    assert ("left out: mask" in printed) == (extra["name"] == "mask")
    assert load_label_map(out.with_name("label_map.pbtxt")).names == ("face",)
    (command,) = [line.split() for line in printed.splitlines() if "mirilla data convert" in line]
    assert main.main(command[1:]) == 0
    assert load_label_map(out.with_name("records") / "label_map.pbtxt").names == ("face",)
    assert read_inputs(JobOptions((str(photos),), tmp_path / "job")).labels.names == ("face",)
