"""The compiler options of all kernels, and a cache that notices when one of the kernels' sources changes.

Numba's cache belongs to the file of a function. It does not notice changes in other files that are compiled into the
function, and then loads code that no longer fits. Here the cache's folder is named after all sources in this package.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import config, njit
from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound=Callable[..., object])
FOLDER = Path(__file__).resolve().parent


def kernel(*signatures: Any) -> Callable[[F], Dispatcher[F]]:
    """Decorator: compile a function that releases the GIL, and cache the result.

    Args:
        signatures: Numba signatures, to compile at import; none: compile at the first call.
    """

    def compiled(function: F) -> Dispatcher[F]:
        settings = config.__dict__
        given = settings["CACHE_DIR"]
        settings["CACHE_DIR"] = given or str(FOLDER / "__pycache__" / f"numba-{_digest()}")
        try:
            return njit(*signatures, nogil=True, cache=True, error_model="numpy")(function)
        finally:
            settings["CACHE_DIR"] = given

    return compiled


inlined = njit(inline="always", error_model="numpy")


@functools.cache
def _digest() -> str:
    content = b"".join(path.read_bytes() for path in sorted(FOLDER.glob("*.py")))
    return hashlib.sha256(content).hexdigest()[:16]
