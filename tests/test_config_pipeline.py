"""Reading and writing pipeline.config: the API's text forms, round trips, and errors with line, field and remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirilla import config
from mirilla.errors import ConfigError
from mirilla.protos import pipeline_pb2, text


def failure(content: str) -> config.ConfigSyntaxError:
    with pytest.raises(config.ConfigSyntaxError) as caught:
        config.loads(content, "p.config")
    return caught.value


def test_the_apis_text_forms_are_accepted():
    pipeline = config.loads(
        """
        # a comment
        model: {
          ssd { num_classes: 3, feature_extractor: { type: 'ssd_mobilenet_v1'; depth_multiplier: 1 } }
        }
        train_config <
          batch_size: 0x10;  # the old brackets, a number in base 16
          freeze_variables: ['a', "b"]
          fine_tune_checkpoint: "/a/"  'b'
          optimizer { rms_prop_optimizer: { epsilon: 1f } }
        >
        """
    )
    ssd, train = pipeline.model.ssd, pipeline.train_config
    assert (ssd.num_classes, ssd.feature_extractor.type) == (3, "ssd_mobilenet_v1")
    assert ssd.feature_extractor.depth_multiplier == 1.0
    assert (train.batch_size, list(train.freeze_variables)) == (16, ["a", "b"])
    assert train.fine_tune_checkpoint == "/a/b"
    assert train.optimizer.rms_prop_optimizer.epsilon == 1.0


def test_defaults_are_the_apis():
    pipeline = config.Pipeline()
    assert pipeline.train_config.batch_size == 32
    assert pipeline.train_config.optimizer.use_moving_average is True
    assert pipeline.train_config.optimizer.moving_average_decay == pytest.approx(0.9999)
    assert pipeline.model.ssd.normalize_loss_by_num_matches is True
    assert pipeline.model.ssd.feature_extractor.min_depth == 16
    assert pipeline.model.ssd.box_predictor.convolutional_box_predictor.use_dropout is True
    assert pipeline.model.ssd.loss.hard_example_miner.num_hard_examples == 64
    assert pipeline.train_input_reader.shuffle_buffer_size == 2048
    assert pipeline.model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay == pytest.approx(0.999)
    schedule = pipeline.train_config.optimizer.rms_prop_optimizer.learning_rate
    assert schedule.exponential_decay_learning_rate.staircase is True


@pytest.mark.parametrize(
    ("content", "line", "field", "suggestion"),
    [
        ("model {\n  ssd {\n    num_clases: 1\n  }\n}", 3, "num_clases", "num_classes"),
        ("train_confg {}", 1, "train_confg", "train_config"),
        ("train_config {\n batchsize: 1 }", 2, "batchsize", "batch_size"),
        ("train_config {\n\n optimiser {} }", 3, "optimiser", "optimizer"),
        (
            "model { ssd { feature_extractor {\n conv_hyperparams { activation: RELU6 } } } }",
            2,
            "RELU6",
            "RELU_6",
        ),
        (
            "train_config { data_augmentation_options {\n random_horizontal_flipp {} } }",
            2,
            "random_horizontal_flipp",
            "random_horizontal_flip",
        ),
        ("mirilla { sede: 1 }", 1, "sede", "seed"),
        ("model { ssd { xyzzy: 1 } }", 1, "xyzzy", None),
    ],
)
def test_misspelt_names(content, line, field, suggestion):
    error = failure(content)
    assert (error.line, error.field, error.suggestion) == (line, field, suggestion)
    assert f"p.config:{line}:" in error.what
    assert f"'{field}'" in error.what
    if suggestion:
        assert f"Did you mean '{suggestion}'?" in (error.remedy or "")


def test_an_unknown_name_lists_the_valid_names():
    assert "num_classes" in (failure("model { ssd { xyzzy: 1 } }").remedy or "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train_config { batch_size: 1\n batch_size: 2 }", ("p.config:2:", "batch_size", "second time")),
        ("model { ssd { num_classes: many } }", ("p.config:1:", "integer", "many")),
        ("train_config { batch_size: -1 }", ("p.config:1:", "-1")),
        ("model { ssd {", ("p.config:1:", "}")),
        (
            "model { ssd { image_resizer { fixed_shape_resizer {}\n identity_resizer {} } } }",
            ("fixed_shape_resizer", "identity_resizer", "only one"),
        ),
        ("model { faster_rcnn { num_classes: 3 } }", ("faster_rcnn is not supported",)),
        ("model { center_net { num_classes: 3 } }", ("center_net is not supported",)),
        ('train_config { fine_tune_checkpoint: "abc\n }', ("p.config:1:",)),
        ("[some.extension] { a: 1 }", ("p.config:1:",)),
        ("train_config { batch_size: 24.0 }", ("p.config:1:", "24.0", "without a decimal point")),
        ("eval_input_reader {\n label_map_path: PATH }", ("p.config:2:", "Put the text in quotes")),
        (
            "train_config { data_augmentation_options {\n random_horizontal_flip {}\n ssd_random_crop {} } }",
            ("p.config:3:", "its own data_augmentation_options { }"),
        ),
        ('eval_input_reader {\n label_map_path: "C:\\Users\\me\\map.pbtxt" }', ("p.config:2:", "escape")),
        ('eval_input_reader {\n label_map_path: "C:\\data\\map.pbtxt" }', ("p.config:2:", "escape")),
        ('eval_input_reader {\n label_map_path: "C:\\tensorflow1\\map" }', ("p.config:2:18:", "begins an escape")),
        ("eval_input_reader {\n label_map_path: 'annotations\\train' }", ("p.config:2:18:", "begins an escape")),
    ],
)
def test_other_errors(content, words):
    error = failure(content)
    assert error.remedy
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    "written", ["C:/tensorflow1/map", "C:\\\\tensorflow1\\\\map", "\\303\\261u.pbtxt", "it\\'s.pbtxt"]
)
def test_paths_that_are_read(written):
    text = f"eval_input_reader {{ label_map_path: '{written}' }}  # model_path: 'C:\\tensorflow'"
    reader = config.loads(text, "p.config").eval_input_reader
    assert reader.label_map_path == written.replace("\\\\", "\\").replace("\\303\\261", "ñ").replace("\\'", "'")


def test_checkpoints_of_tensorflow_2_are_refused():
    text = "train_config { fine_tune_checkpoint_version: %s }"
    found = {f.where for f in config.check(config.loads(text % "V1"), parts=("train",))}
    refused = {f.where for f in config.check(config.loads(text % "V2"), parts=("train",))}
    assert refused - found == {"train_config.fine_tune_checkpoint_version"}


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.config: no such file"):
        config.load(tmp_path / "nowhere.config")


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "a.config"
    path.write_bytes(b"# fine\n\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"a\.config:2: byte 0x89 is not UTF-8"):
        config.load(path)


def test_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.config"
    path.write_bytes(b"\xef\xbb\xbftrain_config { batch_size: 3 }\r\n")
    assert config.load(path).train_config.batch_size == 3


def test_every_sample_parses_and_round_trips(shared):
    files = sorted((shared / "data/odapi/samples").glob("*.config"))
    files += sorted((shared / "data/odapi").glob("*.config"))
    assert len(files) >= 25
    for file in files:
        pipeline = config.load(file)
        assert pipeline.model.ssd.num_classes > 0
        assert config.loads(config.dump(pipeline)) == pipeline


def test_dump_is_written_as_the_api_wrote_it(shared):
    file = shared / "data/odapi/pipeline_exported_b24.config"
    assert config.dump(config.load(file)) == file.read_text()


def test_mirillas_options_are_written_only_if_set():
    pipeline = config.loads("model { ssd { num_classes: 1 } }")
    pipeline.mirilla.SetInParent()
    assert "mirilla" not in config.dump(pipeline)
    pipeline.mirilla.seed = 7
    assert "mirilla {\n  seed: 7\n}" in config.dump(pipeline)


def test_save_writes_a_header_and_reads_back(tmp_path):
    pipeline = config.sample(1, "a.record", "b.record", "l.pbtxt")
    path = tmp_path / "new" / "pipeline.config"
    config.save(path, pipeline, "Two lines\nof comment")
    assert path.read_text().startswith("# Two lines\n# of comment\nmodel {")
    assert config.load(path) == pipeline
    assert [p.name for p in path.parent.iterdir()] == ["pipeline.config"]


def test_merge_replaces_lists_and_merges_messages():
    base = config.loads(
        "train_config { batch_size: 24 freeze_variables: 'a' freeze_variables: 'b' "
        "optimizer { rms_prop_optimizer { decay: 0.5 } } }"
    )
    merged = config.merge(base, "train_config { freeze_variables: 'c' optimizer { use_moving_average: false } }")
    train = merged.train_config
    assert (train.batch_size, list(train.freeze_variables)) == (24, ["c"])
    assert train.optimizer.rms_prop_optimizer.decay == 0.5
    assert train.optimizer.use_moving_average is False
    assert list(base.train_config.freeze_variables) == ["a", "b"]
    other = config.merge(base, "train_config { optimizer { adam_optimizer {} } }")
    assert other.train_config.optimizer.WhichOneof("optimizer") == "adam_optimizer"


def test_override():
    base = config.sample(1, "a.record", "b.record", "l.pbtxt")
    assert config.override(base, "train_config.batch_size", "8").train_config.batch_size == 8
    assert base.train_config.batch_size == 24
    path = "train_input_reader.tf_record_input_reader.input_path"
    assert list(config.override(base, path, "c.record").train_input_reader.tf_record_input_reader.input_path) == [
        "c.record"
    ]
    several = config.override(base, path, ["c", "d"]).train_input_reader.tf_record_input_reader
    assert list(several.input_path) == ["c", "d"]
    assert config.override(base, "mirilla.moving_average_warmup", True).mirilla.moving_average_warmup
    ratios = config.override(base, "model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios", [1, 2.0])
    assert list(ratios.model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train_config.batchsize", 1, ("batchsize", "batch_size")),
        ("train_config.batch_size", "many", ("train_config.batch_size", "many")),
        ("train_config.optimizer", 1, ("is a message",)),
        ("train_config.batch_size.x", 1, ("plain value",)),
        ("train_config.data_augmentation_options[3].ssd_random_crop", 1, ("no entry", "has 2")),
    ],
)
def test_override_errors(path, value, words):
    with pytest.raises(ConfigError) as caught:
        config.override(config.sample(1, "a", "b", "l"), path, value)
    for word in words:
        assert word in str(caught.value)


def test_field_lines():
    lines = text.field_lines(
        "# model {\nmodel: {\n ssd { num_classes: 1\n } }\n"
        "train_config {\n data_augmentation_options { ssd_random_crop {} }\n"
        " data_augmentation_options {\n  random_horizontal_flip { } }\n"
        " freeze_variables: ['{', \"}\"]\n num_steps: 3 }\n"
    )
    assert lines["model.ssd.num_classes"] == 3
    assert lines["train_config.data_augmentation_options.ssd_random_crop"] == 6
    assert lines["train_config.data_augmentation_options[1].random_horizontal_flip"] == 8
    assert lines["train_config.num_steps"] == 10


floats = st.floats(width=32, allow_nan=False)


@given(
    floats,
    floats,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),  # a path with control characters is refused
    st.lists(floats, max_size=6),
    st.sampled_from(["NONE", "RELU", "RELU_6", "SWISH"]),
)
def test_dump_reads_back(decay, weight, steps, seed, string, ratios, activation):
    pipeline = config.Pipeline()
    hyperparams = pipeline.model.ssd.feature_extractor.conv_hyperparams
    hyperparams.batch_norm.decay = decay
    hyperparams.regularizer.l2_regularizer.weight = weight
    hyperparams.activation = pipeline_pb2.Hyperparams.Activation.Value(activation)
    pipeline.model.ssd.anchor_generator.ssd_anchor_generator.aspect_ratios.extend(ratios)
    pipeline.train_config.num_steps = steps
    pipeline.mirilla.seed = seed
    pipeline.train_input_reader.label_map_path = string
    assert config.loads(config.dump(pipeline)) == pipeline
