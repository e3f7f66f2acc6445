"""Recognises a stranger in the place of one of dpsweep's own packages.

`sweeps` is also the name of another project on the package index. pip installs both into one folder and overwrites files
without a word. This module imports none of ours, so that it still works when they are broken.

| what is found | how it is recognised |
|---|---|
| another package comes first on the path | it does not lie beside `dpsweep` |
| pip overwrote `__init__.py` | the line `MARKER` is missing there |
| pip removed `__init__.py` (an uninstall of the other project) | the package has no file |
| pip overwrote any other file | its hash differs from the one in dpsweep's RECORD (`changed_files`) |
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import sys
from pathlib import Path

PACKAGES = ("sweeps", "search_spaces", "dpcore")
MARKER = '__distribution__ = "dpsweep"'
"""A line of each package's `__init__.py`."""

DISTRIBUTION = "dpsweep"
HOME = Path(__file__).resolve().parent.parent
"""The folder in which the four packages lie side by side."""


class ForeignPackage(ImportError):
    """A package of dpsweep's was replaced. The message names the file, its owner and the remedy."""


def check_neighbours(packages: tuple[str, ...] = PACKAGES) -> None:
    """Checks that each package is the one that dpsweep was installed with.

    Raises:
        ForeignPackage: one is not.
    """
    found = foreign_packages(packages)
    if found:
        raise ForeignPackage("\n".join(found))


def foreign_packages(packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """One text for each package that is not dpsweep's own, with the remedy. Takes about a millisecond."""
    return [text for name in packages if (text := _foreign(name)) is not None]


def _foreign(name: str) -> str | None:
    expected = HOME / name / "__init__.py"
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return f"the package {name} is incomplete: expected {expected}, found nothing; {_remedy(None)}"
    origin = Path(spec.origin).resolve()
    if origin != expected:
        owner = _owner(origin)
        hint = _remedy(owner) if owner is not None else f"take {origin.parent.parent} off the path (current folder, PYTHONPATH)"
        return f"the package {name} is not dpsweep's own: expected {expected}, found {origin}{_by(owner)}; {hint}"
    if MARKER not in origin.read_text(encoding="utf-8", errors="replace").splitlines():
        owner = _owner(origin)
        return f"the package {name} is not dpsweep's own: {origin} was overwritten{_by(owner)}; {_remedy(owner)}"
    return None


def changed_files() -> list[str]:
    """One text for each file of the three packages that differs from what dpsweep installed. Takes about 50 ms.

    Empty for an editable installation and for a plain checkout: they have no record of these files.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        files = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        return []
    changed = []
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.hash is None or file.parts[0] not in PACKAGES or path.suffix != ".py" or _digest(path) == file.hash.value:
            continue
        owner = _owner(path)
        changed.append(f"{path} is not the file that dpsweep installed{_by(owner)}; {_remedy(owner)}")
    return changed


def _digest(path: Path) -> str | None:
    """sha256 as a RECORD writes it; None where the file is missing."""
    if not path.is_file():
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()


def _owner(path: Path) -> str | None:
    """The other installed distribution that has the file, as `NAME VERSION`."""
    from importlib.metadata import distributions

    for other in distributions():
        name, files = other.metadata["Name"], other.files or []
        if name != DISTRIBUTION and any(file.name == path.name and Path(str(file.locate())).resolve() == path for file in files):
            return f"{name} {other.version}"
    return None


def _by(owner: str | None) -> str:
    return "" if owner is None else f" by the distribution {owner}"


def _remedy(owner: str | None) -> str:
    pip = f"{sys.executable} -m pip"
    first = "" if owner is None else f"`{pip} uninstall {owner.split()[0]}`, then "
    return f"{first}`{pip} install --force-reinstall --no-deps {DISTRIBUTION}`; the two cannot share one environment"
