"""The emulated camera: its clock, and the frames of folders and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mirilla.emulator.camera import Clock, FolderFrames, open_frames
from mirilla.errors import DataError, MirillaError


def test_clock_drops_frames_and_never_repeats_a_frame():
    now = [100.0]
    clock = Clock(10, lambda: now[0])
    assert clock.next() == (0, 0)
    index, wait_s = clock.next()
    assert (index, wait_s) == (1, pytest.approx(0.1))
    now[0] = 100.57
    assert clock.next() == (5, 0)
    assert clock.next() == (6, pytest.approx(0.03))


def test_frames_of_folders_and_videos(camera_folder: Path, tmp_path: Path):
    frames = FolderFrames(camera_folder)
    assert len(frames) == 3
    assert frames[4][0, 0, 0] == 10
    (camera_folder / "3.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"3\.jpg"):
        FolderFrames(camera_folder)[3]
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "missing", camera_folder / "3.jpg"):
        with pytest.raises(MirillaError):
            open_frames(path)
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (16, 16))
    for level in (0, 80, 160, 240):
        writer.write(np.full((16, 16, 3), level, np.uint8))
    writer.release()
    video = open_frames(tmp_path / "v.avi")
    assert len(video) == 4
    assert video.size == (16, 16)
    found = [int(video[index].mean()) for index in (0, 1, 3, 4, 7)]  # 2 is dropped; 4 is the first again
    assert found == pytest.approx([0, 80, 240, 0, 240], abs=3)
