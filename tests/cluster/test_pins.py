"""Versions stand in one place: cluster/constraints.txt, inside what pyproject.toml admits, and everywhere else as there."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CLUSTER_DIR = ROOT / "cluster"
PINS = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", (CLUSTER_DIR / "constraints.txt").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python_pin() -> str:
    (found,) = re.findall(r"^# python (\S+)$", (CLUSTER_DIR / "constraints.txt").read_text(), re.MULTILINE)
    return str(found)


def test_the_pins_are_what_the_package_admits() -> None:
    for requirement in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]):
        assert Version(PINS[requirement.name]) in requirement.specifier, requirement
    assert Version(python_pin()) in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_the_operator_is_told_the_same_ray(name: str) -> None:
    assert re.findall(r"rayVersion: \"(.*)\"", (CLUSTER_DIR / name).read_text()) == [PINS["ray"]]


def test_a_user_may_keep_another_torch_while_make_installs_the_tested_one() -> None:
    (torch,) = (one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "torch")
    assert {one.operator for one in torch.specifier} == {">=", "<"}
    makefile = (ROOT / "Makefile").read_text()
    assert "PINS := cluster/constraints.txt" in makefile
    assert re.findall(r"pip install.*", makefile) == ["pip install --quiet -c $(PINS) --editable '.[dev]'"]


def test_the_images_are_built_from_the_pins() -> None:
    dockerfile = (CLUSTER_DIR / "Dockerfile").read_text()
    assert f"ARG PYTHON={python_pin()}\n" in dockerfile
    installs = re.findall(r"pip install.*", dockerfile)
    assert installs
    assert all(re.search(r"-c \S*constraints\.txt", line) for line in installs), installs
    assert not re.search(r"==\d", dockerfile)


def test_the_images_have_one_tag() -> None:
    tags = {
        tag for path in CLUSTER_DIR.iterdir() if path.is_file() for tag in re.findall(r"\bdpsweep(?:-mlflow)?:(\d\S*)", path.read_text())
    }
    assert tags == {PROJECT["version"]}


def test_the_nodes_are_installed_from_the_pins() -> None:
    assert '--constraint "$pins"' in (CLUSTER_DIR / "install.sh").read_text()
    for name in ("local.yaml", "aws.yaml", "gcp.yaml"):
        assert "sh ~/dpsweep/cluster/install.sh" in (CLUSTER_DIR / name).read_text()
