"""The kernels' cache: a change in any of their sources makes a new one."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")

from mirilla.kernels import compiler


def test_the_cache_is_named_after_all_kernels_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler.config, "CACHE_DIR", "")
    sources = tmp_path / "kernels"
    sources.mkdir()
    (sources / "a.py").write_text("a")
    monkeypatch.setattr(compiler, "FOLDER", sources)
    paths = set()
    for text in ("1", "2"):
        (sources / "b.py").write_text(text)
        compiler._digest.cache_clear()
        function = compiler.kernel()(lambda x: x + 1)
        assert function(1) == 2
        paths.add(function.stats.cache_path)
        assert compiler.config.CACHE_DIR == ""
    compiler._digest.cache_clear()
    assert len(paths) == 2
    assert all(path.startswith(str(sources / "__pycache__" / "numba-")) for path in paths)


def test_the_users_cache_folder_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler.config, "CACHE_DIR", str(tmp_path))
    function = compiler.kernel()(lambda x: x + 1)
    assert function.stats.cache_path.startswith(str(tmp_path))
