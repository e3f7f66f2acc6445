"""Private parts of other libraries are used in one place each, with the versions that they were seen with."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from sweeps.internals import optuna_internals, ray_internals

ROOT = Path(__file__).parents[3]
OURS = {"dpcore", "search_spaces", "sweeps", "dpsweep"}
DOCUMENTED = {"_thread"}
"""Of Python's own library, public though its name begins with an underscore."""
SEEN_WITH = {"ray": ray_internals.SEEN_WITH, "optuna": optuna_internals.SEEN_WITH}


def private_imports(path: Path) -> Iterator[str]:
    """What a file imports from another library below a name with a leading underscore."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for name in names:
            parts = [*module.split("."), *name.split(".")] if module else name.split(".")
            if parts[0] not in OURS | DOCUMENTED and not parts[0].startswith("__") and any(re.match("_[^_]", part) for part in parts):
                yield ".".join(parts)


def test_private_names_of_other_libraries_are_imported_in_one_module_each() -> None:
    found: dict[str, set[str]] = {}
    folders = [ROOT / name for name in (*OURS, "benchmarks", "tests") if (ROOT / name).is_dir()]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for name in private_imports(path):
            found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    base_class_of_batch_norms, mode_that_sees_operations = "dpcore/model/safety/dp_safe.py", "tests/privacy/test_host_reads.py"
    assert found.pop("torch") == {base_class_of_batch_norms, mode_that_sees_operations}
    assert found == {"ray": {"sweeps/internals/ray_internals.py"}, "optuna": {"sweeps/internals/optuna_internals.py"}}


@pytest.mark.parametrize("library", sorted(SEEN_WITH))
def test_only_the_minor_version_that_they_were_seen_with_is_admitted(library: str) -> None:
    requirements = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    (requirement,) = (one for one in requirements if one.name == library)
    seen = Version(SEEN_WITH[library])
    assert version(library) == SEEN_WITH[library]
    assert requirement.specifier.contains(seen)
    assert not requirement.specifier.contains(f"{seen.major}.{seen.minor + 1}.0")
    assert not requirement.specifier.contains(f"{seen.major}.{seen.minor - 1}.9" if seen.minor else f"{seen.major - 1}.99.0")
