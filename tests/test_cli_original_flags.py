"""The original scripts' flags on Mirilla's own verbs: none is unrecognized."""

from __future__ import annotations

import pytest

from mirilla.cli.main import build_parser
from mirilla.tf1.flags import ABSL, FLAGS

VERBS = {
    "train": ("model_main", ["--pipeline_config_path=p", "--model_dir=m"]),
    "export": ("export_inference_graph", ["--output_directory=o"]),
    "eval": ("eval", []),
}


def parse(verb: str, *words: str):
    return build_parser(verb).parse_args([verb, *VERBS[verb][1], *words])


def test_the_line_of_the_guide(capsys):
    args = parse("train", "--num_train_steps=9", "--sample_1_of_n_eval_examples=1", "--alsologtostderr")
    assert args.num_train_steps == 9
    assert capsys.readouterr().out == (
        "note: --alsologtostderr is ignored: Mirilla prints its messages on the terminal.\n"
    )


def test_ignored_by_name(capsys):
    parse("train", "--sample_1_of_n_eval_examples", "3", "--norun_once", "--logtostderr=true")
    out = capsys.readouterr().out
    assert "--sample_1_of_n_eval_examples is ignored: 'mirilla train' does not evaluate" in out
    assert "--logtostderr is ignored" in out
    assert "run_once" not in out


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("train", "--checkpoint_dir=x", "'mirilla tf1 model_main' has it"),
        ("train", "--hparams_overrides=a=1", "'mirilla tf1 model_main' has it"),
        ("export", "--use_side_inputs", "no side inputs"),
        ("eval", "--eval_training_data", "'mirilla tf1 eval' has it"),
    ],
)
def test_refused_by_name(verb, word, message, capsys):
    with pytest.raises(SystemExit):
        parse(verb, word)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "name"), [(verb, flag.name) for verb in VERBS for flag in (*FLAGS[VERBS[verb][0]], *ABSL)]
)
def test_every_flag_is_known(verb, name):
    if not name.startswith("help") and name != "tf_checkpoints":  # Mirilla's own
        options = {o for a in verb_parser(verb)._actions for o in a.option_strings}
        assert f"--{name}" in options


def verb_parser(verb: str):
    actions = build_parser(verb)._actions
    return next(action for action in actions if action.dest == "verb").choices[verb]
