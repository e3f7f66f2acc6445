"""Opens MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpcore.errors import BadInput
from dpcore.importers.documents import read_content
from dpcore.importers.foreign import refuse_foreign_file


def load_mat(path: Path, key: str, *, wanted: str, **options: Any) -> Any:
    """One variable of a MATLAB file of version 5 to 7.2.

    Args:
        path: the file.
        key: the variable's name.
        wanted: the format that is asked for, a name of `IMPORTERS`.
        options: of `scipy.io.loadmat`.

    Raises:
        BadInput: it is no such file, or has no such variable.
    """
    content = read_content(path)
    refuse_foreign_file(path, content, wanted=wanted)
    if not content.startswith(b"MATLAB"):
        raise BadInput(f"annotations {path}: this is no MATLAB file; expected one with the variable {key}")
    from scipy.io import loadmat  # only here: importing it takes longer than reading a small file

    try:
        variables = loadmat(str(path), **options)
    except (ValueError, TypeError, NotImplementedError, OSError, EOFError) as error:
        raise BadInput(f"annotations {path}: not readable as a MATLAB file ({error})") from None
    if key not in variables:
        found = ", ".join(sorted(name for name in variables if not name.startswith("__"))) or "nothing"
        raise BadInput(f"annotations {path}: no variable {key}; it has {found}")
    return variables[key]
