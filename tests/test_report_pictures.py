"""Boxes on photos: what is right, wrong or missed, and in which colour it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.detections import Detections
from mirilla.report.pictures import (
    FALSE_ALARM,
    FOUND,
    IGNORED,
    MISSED,
    Shown,
    contact_sheet,
    draw,
    draw_compared,
    judge,
)

GREY = np.full((200, 300, 3), 60, np.uint8)
A, B, C = [0.1, 0.1, 0.4, 0.3], [0.5, 0.5, 0.9, 0.8], [0.0, 0.8, 0.2, 1.0]


def detections(boxes, scores=None, classes=None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or np.linspace(0.9, 0.5, count), np.float32),
        np.array(classes or [1] * count, np.int64),
    )


def shown(found, truth, ignore=None, labels=()) -> Shown:
    return Shown(GREY, found, np.array(truth, float).reshape(-1, 4), np.array(ignore or [False] * len(truth)), labels)


def colours(picture) -> set[tuple[int, ...]]:
    return {tuple(c) for c in np.asarray(picture).reshape(-1, 3)}


def test_found_false_and_missed():
    verdict = judge(shown(detections([A, C]), [A, B]))
    assert verdict.detection == ("found", "false")
    assert verdict.truth == ("found", "missed")


def test_the_second_detection_of_one_object_is_false():
    assert judge(shown(detections([A, A]), [A])).detection == ("found", "false")


def test_the_better_score_takes_the_object():
    assert judge(shown(detections([A, A], [0.3, 0.8]), [A])).detection == ("false", "found")


def test_ignored_objects_count_neither_way():
    verdict = judge(shown(detections([A, A, B]), [A, B], [True, False]))
    assert verdict.detection == ("ignored", "ignored", "found")
    assert verdict.truth == ("ignored", "found")


def test_another_class_is_false():
    pair = shown(detections([A]), [A], labels=("dog",))
    assert judge(pair, {1: "face"}).detection == ("false",)
    assert judge(pair, {1: "dog"}).detection == ("found",)


def test_iou_decides():
    moved = [0.1, 0.2, 0.4, 0.4]  # half of A's width away: IoU 1/3
    assert judge(shown(detections([moved]), [A])).detection == ("false",)
    assert judge(shown(detections([moved]), [A]), iou_threshold=0.3).detection == ("found",)


def test_draw_leaves_the_photo_alone_and_marks_the_box():
    before = GREY.copy()
    picture = draw(GREY, detections([B]), {1: "face"})
    assert picture.size == (300, 200)
    assert (before == GREY).all()
    pixels = np.asarray(picture)
    assert tuple(pixels[round(0.5 * 200), 200]) == FOUND  # the top edge
    assert (pixels[150, 200] == 60).all()  # the middle


@pytest.mark.parametrize(
    "box", [[-1, -1, 2, 2], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1], [1, 1, 1, 1], [float("nan")] * 4]
)
def test_odd_boxes_are_drawn_somehow(box):
    assert draw(GREY, detections([box]), {1: "face"}).size == (300, 200)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_odd_photos_are_drawn_somehow(size):
    photo = np.zeros((*size, 3), np.uint8)
    assert draw(photo, detections([A])).size == (size[1], size[0])
    contact_sheet([Shown(photo, detections([A]), np.array([B]))])


def test_each_kind_has_its_colour():
    one = draw_compared(shown(detections([A, C]), [A, B]))
    assert {FOUND, FALSE_ALARM, MISSED} <= colours(one)
    other = draw_compared(shown(detections([]), [A], [True]))
    assert IGNORED in colours(other)
    assert not {FOUND, FALSE_ALARM, MISSED} & colours(other)


def test_contact_sheet_holds_all_photos_and_a_legend():
    photos = [shown(detections([A]), [A, B]) for _ in range(5)]
    sheet = contact_sheet(photos, columns=2, cell_px=100)
    assert sheet.width == 2 * 100 + 3 * 10
    grey = (np.asarray(sheet) == 60).all(axis=2)
    assert 5 * 100 * 66 * 0.4 < grey.sum() < 5 * 100 * 68
    assert {FOUND, FALSE_ALARM, MISSED, IGNORED} <= colours(sheet)  # the legend shows all kinds
