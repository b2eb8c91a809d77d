"""Errors on the command line: from the verb, with what was probably meant; options are checked before work begins."""

from __future__ import annotations

import pytest

from helpers_job import make
from mirilla.cli.main import build_parser, main


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("detct x.jpg", "mirilla: error: unknown verb 'detct'; did you mean 'detect'?"),
        ("data chek x", "mirilla data: error: unknown verb 'chek'; did you mean 'check'?"),
        ("detect x.jpg --treshold 3", "mirilla detect: error: unknown option --treshold; did you mean --threshold?"),
        ("run a --out b --epochs=5", "mirilla run: error: unknown option --epochs; did you mean --steps?"),
        ("run a --out b --frobnicate", "unknown option --frobnicate ('mirilla run --help' lists the options)"),
        ("zoo extra", "mirilla zoo: error: unexpected argument 'extra'"),
        ("run a --out b --resize strech", "unknown --resize 'strech' (choose from squash, letterbox)"),
    ],
)
def test_the_error_names_verb_and_remedy(line, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_names_that_other_programs_use():
    words = ["run", "a", "--out", "b", "--imgsz", "128", "--batch", "8", "--weights", "w.pb"]
    args = build_parser("run").parse_args(words)
    assert (args.size_px, args.batch_size, args.start) == (128, 8, "w.pb")
    assert build_parser("detect").parse_args(["detect", "x.jpg", "--conf", "0.4"]).threshold == 0.4


def test_a_device_that_is_not_there_is_refused_before_the_data_is_read(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    data = make(tmp_path, "set", 12)
    assert main(["run", str(data), "--out", str(tmp_path / "out"), "--device", "cuda"]) != 0
    printed = capsys.readouterr()
    assert "cuda" in printed.err
    assert "[read]" not in printed.out
