"""The table of the original scripts' flags, and the reading of their command lines."""

from __future__ import annotations

import pytest

from mirilla.errors import UsageError
from mirilla.tf1 import flags
from mirilla.tf1.flags import ABSL, ACTS, FLAGS, IGNORED, NEW, REFUSED, Flag
from mirilla.tf1.scripts import script_named

EVERY = [(script, flag) for script in FLAGS for flag in (*FLAGS[script], *ABSL)]


def required(script: str) -> list[str]:
    return [f"--{flag.name}=x" for flag in FLAGS[script] if flag.required]


def other_value(flag: Flag) -> str:
    """A value that differs from the default."""
    if flag.kind is bool:
        return "false" if flag.default else "true"
    return "7" if flag.kind is int else "value"


@pytest.mark.parametrize(("script", "flag"), EVERY, ids=[f"{script}-{flag.name}" for script, flag in EVERY])
def test_every_flag_acts_is_ignored_by_name_or_refused_by_name(script, flag, tmp_path):
    value = other_value(flag)
    if flag.name == "flagfile":
        (tmp_path / "flags").write_text("# none\n")
        value = str(tmp_path / "flags")
    words = [*required(script), f"--{flag.name}={value}"]
    notes: list[str] = []
    if flag.status == REFUSED:
        with pytest.raises(UsageError) as error:
            flags.parse(script, words, notes.append)
        assert f"--{flag.name} " in error.value.what
        assert flag.note in error.value.what
        assert error.value.remedy
        return
    given = flags.parse(script, words, notes.append).given[flag.name]
    assert given == {str: value, int: 7, bool: not flag.default}[flag.kind]
    assert [f"--{flag.name} " in note and flag.note in note for note in notes] == [True] * (flag.status == IGNORED)


@pytest.mark.parametrize(("script", "flag"), EVERY, ids=[f"{script}-{flag.name}" for script, flag in EVERY])
def test_the_table_is_complete(script, flag):
    assert flag.status in (ACTS, IGNORED, REFUSED, NEW)
    assert flag.note
    assert bool(flag.remedy) == (flag.status == REFUSED)
    assert flag.default is None or isinstance(flag.default, flag.kind)


def test_a_refused_flag_may_have_its_default():
    words = ["--train_dir=x", "--num_clones=1", "--master="]
    assert flags.parse("train", words, print).text("train_dir") == "x"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model_dir=a b"], ("model_dir", "a b")),
        (["--model_dir", "a"], ("model_dir", "a")),
        (["-model_dir", "a"], ("model_dir", "a")),
        (["-model_dir=a"], ("model_dir", "a")),
        (["--num_train_steps", "5"], ("num_train_steps", 5)),
        (["--run_once"], ("run_once", True)),
        (["--norun_once"], ("run_once", False)),
        (["--run_once=false"], ("run_once", False)),
        (["--run_once=True"], ("run_once", True)),
        (["--noshowprefixforinfo"], ("showprefixforinfo", False)),
        (["--undefok=old", "--old=3"], ("undefok", "old")),
    ],
)
def test_syntax(words, expected):
    given = flags.parse("model_main", ["--pipeline_config_path=p", "--model_dir=m", *words], lambda note: None).given
    assert given[expected[0]] == expected[1]


def test_the_last_value_counts_and_a_flagfile_is_read(tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text("# paths\n--model_dir=m\n\n--pipeline_config_path=old\n")
    values = flags.parse("model_main", [f"--flagfile={file}", "--pipeline_config_path=p"], print)
    assert (values.text("model_dir"), values.text("pipeline_config_path")) == ("m", "p")
    assert values.number("sample_1_of_n_eval_examples") == 1
    assert values.number("num_train_steps") is None


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (["--model_dr=x"], "unknown flag '--model_dr'", "Did you mean --model_dir?"),
        (["--qqq"], "unknown flag '--qqq'", "--help"),
        (["model_dir=x"], "unexpected argument 'model_dir=x'", "Did you mean --model_dir?"),
        (["--num_train_steps=many"], "must be a whole number", ""),
        (["--run_once=maybe"], "must be true or false", ""),
        (["--model_dir"], "needs a value", "--model_dir=VALUE"),
        (["--model_dir=m"], "--pipeline_config_path is missing", "--help"),
    ],
)
def test_wrong_usage(words, message, remedy):
    with pytest.raises(UsageError) as error:
        flags.parse("model_main", words, print)
    assert message in error.value.what
    assert remedy in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("001_down_data.py", "down_data"),
        ("002_data-to-pascal-xml.py", "data_to_pascal_xml"),
        ("003_xml-to-csv.py", "xml_to_csv"),
        ("./004_generate_tfrecord.py", "generate_tfrecord"),
        ("models/research/object_detection/model_main.py", "model_main"),
        ("export_inference_graph", "export_inference_graph"),
        ("legacy/train.py", "train"),
        ("object_detection/legacy/eval.py", "eval"),
    ],
)
def test_script_names(text, script):
    assert script_named(text) == script


def test_unknown_script():
    with pytest.raises(UsageError, match="Did you mean 'model_main'"):
        script_named("model_mian.py")


def test_help_lists_every_flag():
    for script in FLAGS:
        text = flags.help_text(script)
        assert all(f"--{flag.name} " in text for flag in (*FLAGS[script], *ABSL))
