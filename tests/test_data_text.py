"""The encodings of annotation files."""

from __future__ import annotations

import codecs

import pytest

from mirilla.data import text
from mirilla.errors import DataError, MirillaError


@pytest.mark.parametrize(
    "content",
    [
        "é\nb\n".encode(),
        codecs.BOM_UTF8 + "é\r\nb\r\n".encode(),
        "é\rb\r".encode(),
        codecs.BOM_UTF16_LE + "é\nb\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "é\r\nb\n".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "é\nb\n".encode("utf-32-le"),
        "é\nb\n".encode("utf-16-le"),
        "é\nb\n".encode("utf-16-be"),
    ],
)
def test_text_is_the_same_in_every_encoding(content, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    assert text.decode(content) == text.read(tmp_path / "a.csv") == text.head(tmp_path / "a.csv") == "é\nb\n"


def test_bytes_in_another_encoding_are_named_with_their_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("a\r\nb\r\nGröße".encode("cp1252"))
    with pytest.raises(DataError, match=r"a.csv: it is not UTF-8: byte 0xf6 in line 3") as caught:
        text.read(path)
    assert caught.value.remedy == "Save it as UTF-8."
    with pytest.raises(text.DecodeError, match="not UTF-16-LE"):
        text.decode(codecs.BOM_UTF16_LE + b"a\0b")
    with pytest.raises(MirillaError, match="No such file"):
        text.read(tmp_path / "b.csv")
    assert text.head(tmp_path / "b.csv") == ""
    assert text.decode(b"") == ""


def test_xml_is_read_by_its_header():
    def document(encoding: str) -> str:
        return f"<?xml version='1.0' encoding='{encoding}'?>\n<a>人脸</a>"

    for encoding in ("gb2312", "GBK", "gb18030", "utf-8", "utf-16"):
        assert "人脸" in text.decode_xml(document(encoding).encode(encoding))
    assert "人脸" in text.decode_xml("<a>人脸</a>".encode())
    assert "人脸" in text.decode_xml(document("utf-16").encode())  # a string of .NET that was saved as UTF-8
    assert "人脸" in text.decode_xml(codecs.BOM_UTF8 + document("gb2312").encode())  # the mark counts
    for unknown in ("ANSI", "utf8mb4", "rot13", "hex"):
        with pytest.raises(text.DecodeError, match=f"the encoding '{unknown}' in its header is unknown"):
            text.decode_xml(document(unknown).encode())
    with pytest.raises(text.DecodeError, match="not UTF-8: byte 0xc8 in line 1"):
        text.decode_xml("<a>人脸</a>".encode("gbk"))
