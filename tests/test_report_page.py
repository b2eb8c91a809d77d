"""The report's page, charts and tables."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mirilla.errors import DataError
from mirilla.report.charts import Series, line_chart, smoothed, ticks
from mirilla.report.page import Page, render
from mirilla.report.tables import duration_text, file_rows, size_text, value_text
from mirilla.report.training_log import read_log

RESULT = {
    "metric": "faces",
    "figures": {"AP@0.5": 0.25, "AP@0.5 >= 16 px": None},
    "protocol": {"IoU": "0.5", "input": "256x256, squash"},
    "curves": [{"name": "all faces", "ap": 0.25, "recall": [0, 0.5], "precision": [1, 0.5]}],
}
VOID = {"meta", "img", "br", "line", "polyline"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed, and gathers text and outside references."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.references += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text: str) -> Balanced:
    page = Balanced()
    page.feed(text)
    assert page.open == []
    return page


def log(count: int) -> list[dict]:
    return [
        {
            "step": 20 * i,
            "loss": 5.0 / i,
            "localization_loss": 2.0 / i,
            "classification_loss": 3.0 / i,
            "regularization_loss": 0.01,
            "learning_rate": 0.01,
            "images_per_s": 100.0,
        }
        for i in range(1, count + 1)
    ]


def test_page_carries_everything_in_itself(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.jpg")
    page = parsed(
        render(
            Page(
                "My faces",
                "lead",
                [("network", "small")],
                [("pictures", "5")],
                [("error", "missing-picture", 2, "a.jpg")],
                [RESULT],
                [("AP", "0.25")],
                log(30),
                tmp_path / "sheet.jpg",
                [("a.pb", "1 kB", "graph")],
                [("Detect:", "mirilla detect x")],
                ["a note"],
            )
        )
    )
    text = " ".join(page.text)
    for words in (
        "My faces",
        "0.2500",
        "n/a",
        "256x256, squash",
        "missing-picture",
        "mirilla detect x",
        "a note",
        "Loss",
        "Learning rate",
        "Precision and recall: faces",
    ):
        assert words in text, words
    assert all(r.startswith("data:image/jpeg;base64,") for r in page.references)


def test_an_empty_page_is_a_page():
    assert "<h1>nothing</h1>" in render(Page("nothing"))


def test_names_from_outside_are_escaped():
    page = render(Page("<script>alert(1)</script>", data=[("set", "a<b>&c")], files=[("<i>", "1", "x")]))
    assert "<script>" not in page
    assert "a&lt;b&gt;&amp;c" in page


def test_log_of_a_resumed_training(tmp_path):
    path = tmp_path / "log.jsonl"
    steps = [20, 40, 60, 40, 60, 80]
    path.write_text("".join(json.dumps({"step": s, "loss": float(i)}) + "\n" for i, s in enumerate(steps)))
    assert [(e["step"], e["loss"]) for e in read_log(path)] == [(20, 0), (40, 3), (60, 4), (80, 5)]


def test_log_keeps_measurements_beside_losses(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 20, "loss": 1}\n{"step": 20, "eval": {"AP": 0.1}}\n{"step": 40, "lo')
    assert [sorted(e) for e in read_log(path)] == [["loss", "step"], ["eval", "step"]]


def test_a_broken_log_is_named_with_its_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2}\nrubbish\n{"step": 2, "loss": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        read_log(path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (3, 9.5, [4, 6, 8]),
        (0, 0.0101, [0, 0.0025, 0.005, 0.0075, 0.01]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_chart_leaves_out_what_is_not_finite():
    chart = line_chart("t", [Series("a", np.arange(4.0), np.array([1, np.nan, np.inf, 2]))], "x", "y")
    assert "nan" not in chart
    assert "inf" not in chart
    assert line_chart("t", [Series("a", np.arange(2.0), np.full(2, np.nan))], "x", "y") == ""


def test_chart_of_one_point_and_of_equal_values():
    assert "<svg" in line_chart("t", [Series("a", np.zeros(1), np.zeros(1))], "x", "y")


def test_smoothed_is_a_running_mean():
    faint, mean = smoothed("a", range(100), [0, 2] * 50)
    assert faint.faint
    assert len(mean.y) == 100
    assert mean.y[10:90] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.2 kB"),
        (123_456, "123 kB"),
        (5_000_000, "5.0 MB"),
        (7_200_000_000, "7.2 GB"),
    ],
)
def test_sizes(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.1 s"), (9.97, "10 s"), (75, "1 min 15 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_values():
    assert [value_text(v) for v in (0.5, None, float("nan"))] == ["0.5000", "n/a", "n/a"]


def test_many_pictures_and_shards_are_one_row_each():
    rows = file_rows(
        [
            ("report.html", 10),
            ("toy/WIDER_val/images/a/1.jpg", 1000),
            ("toy/WIDER_val/images/b/2.jpg", 2000),
            ("data/train-00000-of-00002.tfrecord", 5),
            ("data/train-00001-of-00002.tfrecord", 6),
        ]
    )
    assert [r[0] for r in rows] == ["report.html", "toy/WIDER_val/**/*.jpg", "data/train-*.tfrecord"]
    assert rows[1][1] == "3.0 kB"
    assert rows[2][1] == "11 B"
