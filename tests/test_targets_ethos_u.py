"""Files compiled by Vela, read by our own code and by Vela's report."""

from __future__ import annotations

import pytest

from helpers_targets import NO_PICTURES, calibration_pictures, shipped_source, zoo_source
from mirilla.cli.main import main
from mirilla.errors import MissingExtraError, ModelError
from mirilla.targets import table
from mirilla.targets.micro import ethos_u
from mirilla.targets.tflite import integers

pytest.importorskip("ethosu")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(ethos_u.build(shipped_source(), calibration_pictures()))


def test_every_operator_runs_on_the_npu_and_fits_the_boards_memory(files):
    for device in ethos_u.DEVICES:
        found = ethos_u.compile_for(device, files["model_int8.tflite"])
        assert (found.cpu_operators, found.on_cpu) == (0, ())
        assert found.npu_operators > 50
        assert 0 < found.sram_kib <= (device.sram_kib or 1024)
        assert found.content == files[device.file]
        assert found.milliseconds > 0


@pytest.mark.parametrize(("name", "classes", "converter"), [("kit-wide-s8", 1, "SIGMOID"), ("kit", 3, "SOFTMAX")])
def test_other_models_run_on_the_npu(name, classes, converter):
    model = integers.build(zoo_source(name, classes, converter), calibration_pictures())[integers.FILE]
    found = ethos_u.compile_for(ethos_u.DEVICES[0], model)
    assert (found.cpu_operators, found.on_cpu, round(found.sram_kib)) == (0, (), 513)


def test_a_compiled_file_is_one_custom_operator(files):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    for device in ethos_u.DEVICES:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files[device.file], 0))
        (graph,) = model.subgraphs
        assert [model.operatorCodes[one.opcodeIndex].customCode for one in graph.operators] == [b"ethos-u"]
        assert [tuple(graph.tensors[i].shape) for i in graph.inputs] == [(1, 256, 256, 3)]
        assert [tuple(graph.tensors[i].shape) for i in graph.outputs] == [(1, 1278, 4), (1, 1278, 1)]


def test_the_page_has_the_figures_and_commands(files):
    page = files[ethos_u.REPORT].decode()
    for device in ethos_u.DEVICES:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{device.file}`")]
        assert row.split("|")[4].strip() == "0"
        assert f"--accelerator-config {device.accelerator}" in page
    assert "left to the CPU" not in page
    assert all(len(line) <= 120 or line.startswith(("vela ", "|")) for line in page.splitlines())


def test_operators_that_stay_on_the_cpu_are_named():
    floats = table.target("tflite").build(shipped_source(), NO_PICTURES)["model.tflite"]
    found = ethos_u.compile_for(ethos_u.DEVICES[0], floats)
    assert found.npu_operators == 0
    assert found.cpu_operators > 50
    assert any(line.startswith("LOGISTIC 'scores': Operation has tensor with unsupported") for line in found.on_cpu)
    assert "## Operators that are left to the CPU" in ethos_u.report([found])


def test_what_vela_refuses_is_one_error():
    with pytest.raises(ModelError, match=r"Vela cannot compile the model for ethos-u55-64: .*Compilation failed"):
        ethos_u.compile_for(ethos_u.DEVICES[0], b"TFL3, or not")


def test_without_vela_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    assert main(["export", "shipped", "--to", "ethos-u,tflite", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "needs the package 'ethos-u-vela', which is not installed" in error
    assert "pip install 'mirilla[ethos-u]'" in error
    assert not list(tmp_path.iterdir())
    lines: list[str] = []
    assert "ethos-u" not in [target.name for target in table.chosen("all", lines.append)]
    assert lines[0].startswith("ethos-u: left out: ")
    with pytest.raises(MissingExtraError):
        table.chosen("ethos-u", lines.append)
