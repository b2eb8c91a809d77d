"""A version as a .zip, for kits without network: unpacked on the kit, `sh install.sh` installs it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

from mirilla.board import install, service
from mirilla.board.payload import ARCHIVE_TIME, SUMS, Payload
from mirilla.files import writing

README = """{model} for the AIY Vision Kit, version {name}

On the kit, as its own user (pi):

    python3 -m zipfile -e {bundle} .        (or unzip)
    sh mirilla-bundle/install.sh            installs into ~/mirilla and switches to this version
    python3 ~/mirilla/current/mirilla_kit.py

    sh mirilla-bundle/install.sh --service  also starts it now and at every power-on; replaces the joy demo
    sh mirilla-bundle/install.sh --rollback returns to the previous version
    sh mirilla-bundle/install.sh --remove   removes everything
"""


def write(payload: Payload, path: str | os.PathLike[str], options: Sequence[str] = ()) -> None:
    """Write the bundle.

    Args:
        options: options of the program, for the service.

    Raises:
        MirillaError: the file cannot be written; no incomplete file is left.
    """
    files = {
        **payload.files,
        SUMS: payload.sums.encode(),
        "install.sh": script(payload, options).encode(),
        "README.txt": README.format(model=payload.model, name=payload.name, bundle=os.path.basename(path)).encode(),
    }
    with writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"mirilla-bundle/{name}", ARCHIVE_TIME)
            entry.external_attr = (0o100755 if name.endswith(".sh") else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


def script(payload: Payload, options: Sequence[str] = ()) -> str:
    """install.sh: the scripts that run over SSH, each in its own subshell."""
    names = " ".join(f'"$here"/{_quoted(name)}' for name in (*payload.files, SUMS))
    steps = {
        "install_version": install.install_script(payload, fetch=f'cp {names} "$new"/'),
        "install_service": service.install_script(options, replace_joy=True),
        "roll_back": install.ROLLBACK,
        "restart_service": service.restart_script(),
        "remove_service": service.remove_script(),
        "remove_versions": install.REMOVE,
    }
    functions = "\n\n".join(f"{name}() (\n{body}\n)" for name, body in steps.items())
    return f"""#!/bin/sh
# Installs version {payload.name} of {_comment(payload.model)} in ~/mirilla; see README.txt.
here=$(cd "$(dirname "$0")" && pwd) || exit 1

{functions}

case ${{1:-}} in
  "") install_version && restart_service ;;
  --service) install_version && install_service ;;
  --rollback) roll_back && restart_service ;;
  --remove) remove_service && remove_versions ;;
  *) echo "usage: sh install.sh [--service | --rollback | --remove]" >&2; exit 2 ;;
esac
"""


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "'\\''") + "'"


def _comment(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
