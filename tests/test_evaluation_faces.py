"""AP on faces: the rule case by case, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.detections import Detections
from mirilla.errors import DataError
from mirilla.evaluation.faces import Faces
from mirilla.evaluation.interface import GroundTruth

# In a picture of 256 x 128 a face of s pixels is s / 128 high and s / 256 wide, and its size is s.
HEIGHT, WIDTH = 128, 256


def square(x: float, size: float, y: float = 0) -> list[float]:
    return [y / HEIGHT, x / WIDTH, (y + size) / HEIGHT, (x + size) / WIDTH]


BIG, MIDDLE, SMALL = square(0, 40), square(60, 20), square(120, 10)
AWAY_BIG, AWAY_SMALL = square(0, 40, 80), square(180, 10, 80)


def figures(faces, detections, **flags):
    truth = GroundTruth(
        "a",
        HEIGHT,
        WIDTH,
        np.array(faces),
        np.ones(len(faces)),
        **{k: np.array(v, bool) for k, v in flags.items()},
    )
    scores = np.linspace(0.9, 0.5, len(detections)).astype(np.float32)
    found = Detections(np.array(detections, np.float32).reshape(-1, 4), scores, np.ones(len(scores), np.int64))
    result = Faces().evaluate([truth], [found])
    return [result["AP@0.5"], result["AP@0.5 >= 16 px"], result["AP@0.5 >= 24 px"]]


@pytest.mark.parametrize(
    ("faces", "detections", "flags", "want"),
    [
        pytest.param([BIG, MIDDLE, SMALL], [BIG, MIDDLE, SMALL], {}, [1, 1, 1], id="all found"),
        pytest.param([BIG, MIDDLE, SMALL], [BIG], {}, [1 / 3, 1 / 2, 1], id="smaller faces do not count as missed"),
        pytest.param([BIG, MIDDLE], [MIDDLE, BIG], {}, [1, 1, 1], id="a hit on a smaller face is not wrong"),
        pytest.param([BIG], [AWAY_SMALL, BIG], {}, [1 / 2, 1, 1], id="a wrong detection below the bound is ignored"),
        pytest.param([BIG], [AWAY_BIG, BIG], {}, [1 / 2, 1 / 2, 1 / 2], id="a wrong detection above the bound counts"),
        pytest.param(
            [BIG, MIDDLE],
            [MIDDLE, MIDDLE, BIG],
            {"ignore": [0, 1]},
            [1, 1, 1],
            id="an ignored face takes any number",
        ),
        pytest.param([BIG], [BIG, BIG], {}, [1, 1, 1], id="a second find after the last face costs nothing"),
        pytest.param(
            [BIG, MIDDLE],
            [BIG, BIG, MIDDLE],
            {},
            [0.5 + 0.5 * 2 / 3, 0.5 + 0.5 * 2 / 3, 1],
            id="a second find is wrong",
        ),
        pytest.param([BIG, MIDDLE], [], {}, [0, 0, 0], id="nothing found"),
    ],
)
def test_rule(faces, detections, flags, want):
    assert figures(faces, detections, **flags) == pytest.approx(want)


def test_a_detection_smaller_than_the_bound_that_matches_a_face_is_right():
    face, found = square(0, 17), square(0, 15)  # IoU (15 / 17)^2 = .78
    assert figures([face], [found])[1] == 1


def test_iou_is_measured_in_pixels_and_its_bound_is_inclusive():
    assert figures([square(0, 20)], [[0, 0, 20 / HEIGHT, 10 / WIDTH]])[0] == 1  # exactly half
    assert figures([square(0, 20)], [[0, 0, 20 / HEIGHT, 9.9 / WIDTH]])[0] == 0


def test_sizes_are_those_at_a_long_side_of_256():
    truth = GroundTruth("a", 1024, 2048, np.array([square(0, 20)]), np.ones(1))  # 160 px in the photo, 20 at 256
    result = Faces().evaluate([truth], [Detections.none()])
    assert result["AP@0.5 >= 16 px"] == 0
    assert np.isnan(result["AP@0.5 >= 24 px"])
    assert "1 >= 16 px, 0 >= 24 px" in result.protocol["data"]


def test_only_ignored_faces_is_an_error():
    truth = GroundTruth("a", HEIGHT, WIDTH, np.array([BIG]), np.ones(1), ignore=np.array([True]))
    with pytest.raises(DataError, match="none of which counts"):
        Faces().evaluate([truth], [Detections.none()])
