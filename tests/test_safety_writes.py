"""Nothing is written outside the destination, and nothing that a verb reads or did not make is overwritten."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mirilla import shipped
from mirilla.cli.main import main
from mirilla.data.convert import convert
from mirilla.data.dataset import Dataset
from mirilla.data.images import MAX_PIXELS_VARIABLE, decode_rgb, header_of
from mirilla.data.output import is_below
from mirilla.data.sample import Sample
from mirilla.errors import DataError, ModelError, UsageError


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), (90, 20, 40)).save(stream, "JPEG")
    return stream.getvalue()


def dataset(name: str, tmp_path) -> Dataset:
    sample = Sample(picture(), name, 10, 20, np.array([[0.1, 0.1, 0.9, 0.9]]), ("face",))
    return Dataset("set", "csv", (sample,), (), tmp_path / "set", ("face",))


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:/x.jpg", "", "a//b.jpg", "..\\x.jpg"])
@pytest.mark.parametrize("to", ["voc", "csv", "coco", "yolo", "widerface"])
def test_names_that_lead_out_are_refused_before_anything_is_written(name, to, tmp_path):
    outside = tmp_path / "work"
    outside.mkdir()
    (outside / "x.xml").write_text("mine")
    with pytest.raises(DataError, match="cannot be a picture's name"):
        convert(dataset(name, tmp_path), outside / "out", to)
    assert [path.name for path in outside.iterdir()] == ["x.xml"]
    assert (outside / "x.xml").read_text() == "mine"
    assert not is_below(name)


def test_a_long_name_is_an_error_and_not_a_traceback(tmp_path):
    with pytest.raises(DataError, match="longer than"):
        convert(dataset(f"{'é' * 150}.jpg", tmp_path), tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()


def test_postscript_called_a_photo_is_not_opened(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError):
        decode_rgb(path)
    assert main(["detect", str(path)]) == 1


def test_too_many_pixels_are_refused_from_the_header(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (12_000, 9_000)).save(path)
    with pytest.raises(DataError, match="12000 x 9000 pixels"):
        header_of(path)
    with pytest.raises(DataError, match=MAX_PIXELS_VARIABLE):
        decode_rgb(path.read_bytes())
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "200000000")
    assert header_of(path).upright_px == (9_000, 12_000)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(shipped.PHOTO, folder / "a.jpg")
    return folder


@pytest.mark.parametrize("out", [".", "photos", "photos/a.jpg", "drawn.jpg", "other"])
def test_detect_never_overwrites_what_it_reads_or_did_not_make(out, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(photos / "a.jpg", tmp_path / "a.jpg")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    source = "a.jpg" if out == "." else "photos"
    assert main(["detect", source, "--out", out]) != 0
    assert "--out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_detect_replaces_its_own_earlier_results(photos, tmp_path):
    out = tmp_path / "out"
    assert main(["detect", str(photos), "--out", str(out)]) == 0
    first = (out / "a.jpg").stat().st_mtime_ns
    assert main(["detect", str(photos), "--out", str(out)]) == 0
    assert (out / "a.jpg").stat().st_mtime_ns > first
    assert len(json.loads((out / "detections.json").read_bytes())["results"]) == 1


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    from mirilla.weights.arrays import load_safetensors, save_safetensors

    path = tmp_path / "model.ckpt-7.safetensors"
    arrays = {"b": np.arange(6.0, dtype=np.float32).reshape(2, 3), "a": np.array(7), "empty": np.zeros((0, 2))}
    save_safetensors(path, arrays, {"seed": "1", "config": "x"})
    content = path.read_bytes()
    save_safetensors(path, dict(reversed(arrays.items())), {"seed": "1", "config": "x"})
    assert path.read_bytes() == content  # the same arrays give the same bytes
    loaded, metadata = load_safetensors(path)
    assert metadata == {"format": "mirilla", "seed": "1", "config": "x"}
    assert all((loaded[name] == value).all() for name, value in arrays.items())
    for place in range(len(content) - 32, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="checksum"):
            load_safetensors(path)


def test_two_trainings_in_one_folder(tmp_path):
    pytest.importorskip("torch")
    from mirilla import config
    from mirilla.files import locked
    from mirilla.training.trainer import LOCK, train

    folder = tmp_path / "train"
    folder.mkdir()
    pipeline = config.sample(1, "none.record", "none.record", "none.pbtxt", steps=1)
    with locked(folder / LOCK, "held", ""), pytest.raises(UsageError, match="another process is training"):
        train(pipeline, folder, device="cpu")


@pytest.mark.parametrize("text", ["--dir=/etc", "--dir /etc", "--di=/etc", "--d /etc"])
def test_the_kits_folder_is_not_an_option(text, capsys):
    assert main(["deploy", "m.binaryproto", "pi@host", "--run", f"--options={text}"]) == 2
    assert "--dir" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_ports_out_of_range(port, capsys):
    assert main(["deploy", "--check", "pi@host", "-p", port]) == 2
    assert "between 1 and 65535" in capsys.readouterr().err
