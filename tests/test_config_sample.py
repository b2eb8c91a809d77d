"""The sample pipeline against the API's file, field by field."""

from __future__ import annotations

from pathlib import Path

from mirilla import config


def leaves(message, prefix=""):
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        values = value if hasattr(value, "append") or hasattr(value, "add") else [value]
        for index, item in enumerate(values):
            if hasattr(item, "ListFields"):
                yield f"{path}[{index}]", "present"
                yield from leaves(item, f"{path}[{index}].")
            else:
                yield f"{path}[{index}]", item


def test_the_sample_is_the_apis(shared):
    theirs = config.load(shared / "data/odapi/pipeline_b24.config")
    ours = config.sample(1, "data/train.record", "data/val.record", "data/label_map.pbtxt", num_eval_examples=48)
    assert dict(leaves(ours)) == dict(leaves(theirs))
    assert len(dict(leaves(ours))) > 100
    assert ours == theirs


def test_what_is_filled_in():
    pipeline = config.sample(
        20,
        ["a.record", Path("b.record")],
        Path("c") / "eval.record",
        "labels.pbtxt",
        steps=5000,
        batch_size=8,
        depth_multiplier=0.25,
        height=192,
        width=320,
    )
    ssd = pipeline.model.ssd
    assert (ssd.num_classes, ssd.feature_extractor.depth_multiplier) == (20, 0.25)
    resizer = ssd.image_resizer.fixed_shape_resizer
    assert (resizer.height, resizer.width) == (192, 320)
    assert (pipeline.train_config.num_steps, pipeline.train_config.batch_size) == (5000, 8)
    assert list(pipeline.train_input_reader.tf_record_input_reader.input_path) == ["a.record", "b.record"]
    assert list(pipeline.eval_input_reader.tf_record_input_reader.input_path) == ["c/eval.record"]
    assert pipeline.train_input_reader.label_map_path == pipeline.eval_input_reader.label_map_path == "labels.pbtxt"
    assert not pipeline.eval_input_reader.shuffle


def test_letterbox():
    resizer = config.sample(1, "a", "b", "c", keep_aspect_ratio=True).model.ssd.image_resizer
    assert resizer.WhichOneof("image_resizer_oneof") == "keep_aspect_ratio_resizer"
    letterbox = resizer.keep_aspect_ratio_resizer
    assert (letterbox.min_dimension, letterbox.max_dimension, letterbox.pad_to_max_dimension) == (
        256,
        256,
        True,
    )
