"""mirilla compile, with our options and with those of Google's compiler."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from helpers_bonnet import PAIR, PAIR_SHA256, graph_with_card, unsupported
from helpers_graph import small_network
from mirilla.cli import compile as command
from mirilla.cli.main import main
from mirilla.graph import write_graph_def


def test_our_command_line(shared, tmp_path, capsys):
    out = tmp_path / "model.binaryproto"
    assert main(["compile", str(shared / PAIR), "--out", str(out)]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == PAIR_SHA256
    stdout = capsys.readouterr().out
    for text in ("64", "196900", "1179648", "653", PAIR_SHA256, "Preprocessor/sub"):
        assert text in stdout


GOOGLES_OPTIONS = [
    "--input_tensor_name=Preprocessor/sub",
    "--output_tensor_names=concat,concat_1",
    "--input_tensor_size=256",
    "--debug",
]


def test_command_line_of_googles_compiler_works_for_both_programs(shared, tmp_path, capsys):
    for name, run in (("a", lambda args: main(["compile", *args])), ("b", command.main)):
        out = tmp_path / name
        assert run([f"--frozen_graph_path={shared / PAIR}", f"--output_graph_path={out}", *GOOGLES_OPTIONS]) == 0
        assert hashlib.sha256(out.read_bytes()).hexdigest() == PAIR_SHA256
        assert "ReorderBrcdToBdrcMyriad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        ("concat,concat1", ["outputs: 'concat,concat1' is read as 'concat,concat_1'"]),
        ("“concat,concat1”", ["outputs: 'concat,concat1' is read as 'concat,concat_1'"]),
        ("“concat,concat_1”", []),
    ],
)
def test_the_names_of_the_guide_of_2018(shared, tmp_path, capsys, names, notes):
    out = tmp_path / "m"
    args = [f"--frozen_graph_path={shared / PAIR}", f"--output_graph_path={out}", *GOOGLES_OPTIONS]
    args[2:4] = ["--input_tensor_name=“Preprocessor/sub”", f"--output_tensor_names={names}"]
    assert command.main(args) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == PAIR_SHA256
    assert [line for line in capsys.readouterr().out.splitlines() if "is read as" in line] == notes


def test_a_wrong_name_on_the_command_line_of_googles_compiler(shared, tmp_path, capsys):
    args = [f"--frozen_graph_path={shared / PAIR}", f"--output_graph_path={tmp_path / 'm'}", *GOOGLES_OPTIONS]
    args[3] = "--output_tensor_names=concat,conct_1"
    assert command.main(args) == 1
    assert "--output-tensors concat,concat_1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_failures_leave_no_file_and_no_traceback(tmp_path, capsys):
    graph = tmp_path / "graph.pb"
    write_graph_def(graph, unsupported("sigmoid").graph_def)
    assert main(["compile", str(graph), "--out", str(tmp_path / "m.binaryproto")]) == 1
    assert main(["compile"]) == 2
    assert main(["compile", str(graph), "--out", str(graph)]) == 2
    assert main(["compile", str(tmp_path / "none.pb"), "--out", str(tmp_path / "m")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["graph.pb"]
    assert "Traceback" not in capsys.readouterr().err


def test_the_doctor_is_named_where_it_is_the_cure(tmp_path, capsys):
    graph = tmp_path / "graph.pb"
    write_graph_def(graph, small_network("FusedBatchNormV3", side=8).graph_def)  # a kernel larger than its map
    assert main(["compile", str(graph), "--out", str(tmp_path / "m.binaryproto")]) == 1
    assert f"mirilla doctor {graph} --fix {tmp_path / 'graph_fixed.pb'} writes" in capsys.readouterr().err
    assert main(["doctor", str(graph), "--fix", str(tmp_path / "graph_fixed.pb")]) == 0
    assert main(["compile", str(tmp_path / "graph_fixed.pb"), "--out", str(tmp_path / "m.binaryproto")]) == 0
    write_graph_def(graph, unsupported("no-sample").graph_def)
    capsys.readouterr()
    assert main(["compile", str(graph), "--out", str(tmp_path / "n.binaryproto")]) == 1
    assert "--fix" not in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["input of 256x256", "another model"])
def test_card_that_does_not_match_is_not_written(tmp_path, capsys, reason):
    graph = graph_with_card(tmp_path, 64 if reason.startswith("input") else 256)
    if reason == "another model":
        write_graph_def(graph, small_network(side=256, seed=1).graph_def)
    assert main(["compile", str(graph), "--out", str(tmp_path / "kit" / "m.binaryproto")]) == 0
    captured = capsys.readouterr()
    assert reason in captured.err
    assert [path.name for path in (tmp_path / "kit").iterdir()] == ["m.binaryproto"]


def test_compiler_runs_as_a_module(shared, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mirilla.cli.compile",
            f"--frozen_graph_path={shared / PAIR}",
            f"--output_graph_path={tmp_path / 'm'}",
            *GOOGLES_OPTIONS[:3],
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest() == PAIR_SHA256
