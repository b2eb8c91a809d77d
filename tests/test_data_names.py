"""Pictures are found by the names that labelling tools write."""

from __future__ import annotations

import os
import unicodedata

import pytest

from mirilla.data.names import PictureFinder


@pytest.fixture
def folder(tmp_path):
    names = (
        "a.jpg",
        "faces/a.jpg",
        "faces/b.JPG",
        "my photo.jpg",
        "100%25.jpg",
        "x/y/c.png",
        "two.v1.jpg",
        "two.v2.jpg",
    )
    for name in (*names, unicodedata.normalize("NFD", "café.jpg"), "sub\\odd.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("faces/a.jpg", "faces/a.jpg"),
        ("faces\\a.jpg", "faces/a.jpg"),
        (".\\faces\\a.jpg", "faces/a.jpg"),
        ("./faces/a.jpg", "faces/a.jpg"),
        ("sub\\odd.jpg", "sub\\odd.jpg"),
        ("C:\\Users\\me\\faces\\a.jpg", "faces/a.jpg"),
        ("C:\\Users\\me\\a.jpg", "a.jpg"),
        ("/content/drive/faces/b.JPG", "faces/b.JPG"),
        ("\\\\server\\share\\c.png", None),
        ("file:///C:/Users/me/my%20photo.jpg", "my photo.jpg"),
        ("file:///home/me/my%20photo.jpg", "my photo.jpg"),
        ("https://host.example/data/faces/a.jpg?width=3", "faces/a.jpg"),
        ("my%20photo.jpg", "my photo.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("a", "a.jpg"),
        ("faces/b", "faces/b.JPG"),
        ("faces/B.jpg", "faces/b.JPG"),
        ("FACES/A.JPG", "faces/a.jpg"),
        ("two.v1", "two.v1.jpg"),
        ("two", None),
        ("a.png", None),
        ("../photos/a.jpg", "photos/a.jpg"),
        ("café.jpg", unicodedata.normalize("NFD", "café.jpg")),
        ("café", unicodedata.normalize("NFD", "café.jpg")),
        ("", None),
        ("..", None),
        ("/", None),
        ("a\0.jpg", None),
        ("\udc80.jpg", None),
        ("x" * 5000, None),
        ("file://[", None),
    ],
)
def test_find(folder, given, name):
    found = PictureFinder(folder).find(given)
    if name is None:
        assert not os.path.isfile(found.path)
    else:
        assert found.name == name
        assert found.path.is_file()
    assert found.name
    assert ".." not in found.name.split("/")


def test_an_absolute_path_that_exists_is_taken(folder, tmp_path):
    outside = tmp_path / "elsewhere" / "a.jpg"
    outside.parent.mkdir()
    outside.touch()
    assert PictureFinder(folder).find(str(outside)) == (outside, "a.jpg")
    inside = folder / "faces" / "a.jpg"
    assert PictureFinder(folder).find(str(inside)) == (inside, "faces/a.jpg")


def test_the_first_folder_with_the_picture_wins(folder):
    finder = PictureFinder(folder / "x", folder)
    assert finder.find("a.jpg").path == folder / "a.jpg"
    assert finder.find("y\\c.png").path == folder / "x/y/c.png"
    assert finder.find("none.jpg").path == folder / "x/none.jpg"


def test_a_name_that_several_files_fit_by_case_is_not_guessed(folder):
    (folder / "A.jpg").touch()
    assert not PictureFinder(folder).find("a.JPG").path.is_file()
    assert PictureFinder(folder).find("A.jpg").name == "A.jpg"
