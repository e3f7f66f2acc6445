"""Strangers in the place of dpsweep's own packages: a real wheel, a real stranger installed over it, a throw-away environment."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeps.remote.node_facts import FIND_STRANGERS

ROOT = Path(__file__).parents[2]
SOURCES = ("dpsweep", "sweeps", "dpcore", "search_spaces", "cluster", "pyproject.toml", "README.md", "LICENSE")
WANDB_SWEEPS = {"sweeps/__init__.py": "from .run import *\n", "sweeps/run.py": "class SweepRun: ...\n", "sweeps/bayes_search.py": ""}


def run(*line: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DPSWEEP_DATA_DIR")} | variables
    return subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False, timeout=300, env=environment, cwd="/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, copy / name)
    done = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", copy / "dist", copy)
    assert done.returncode == 0, done.stderr[-2000:]
    return next((copy / "dist").glob("dpsweep-*.whl"))


@dataclass(frozen=True)
class Environment:
    """A throw-away environment whose libraries are those of this one."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    def pip(self, *line: str | Path) -> None:
        done = run(sys.executable, "-m", "pip", "--python", self.python, "-q", *line)
        assert done.returncode == 0, done.stderr[-2000:]

    def dpsweep(self, *line: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder / "bin" / "dpsweep", *line)

    def code(self, program: str) -> subprocess.CompletedProcess[str]:
        return run(self.python, "-c", program)


@pytest.fixture(scope="module")
def shared_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    made = Environment(folder)
    (made.packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])  # of a path there, .pth files are not read
    made.pip("install", "--no-deps", "--no-index", wheel)
    return made


@pytest.fixture
def environment(shared_environment: Environment, wheel: Path) -> Iterator[Environment]:
    """The environment; afterwards the stranger is taken out and our files are put back."""
    yield shared_environment
    for left in (*shared_environment.packages.glob("*-0.0.7.dist-info"), shared_environment.packages / "sweeps" / "bayes_search.py"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(shared_environment.packages, [name for name in archive.namelist() if name.endswith(".py")])


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[[str, dict[str, str]], Path]:
    """Builds a wheel of another project by hand."""

    def build(name: str, files: dict[str, str]) -> Path:
        info = f"{name}-0.0.7.dist-info"
        content = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.7\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = [f"{path},sha256={_hash(text)},{len(text)}" for path, text in content.items()]
        path = tmp_path / f"{name}-0.0.7-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in content.items():
                archive.writestr(file, text)
            archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))
        return path

    return build


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def message_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that must end with exit 1."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("dpsweep: ")
    return done.stderr


def test_the_wheel_has_its_data_and_no_package_named_cluster(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".data/" not in name and ".dist-info/" not in name} == {
        "dpsweep",
        "sweeps",
        "dpcore",
        "search_spaces",
    }
    assert {"dpsweep/py.typed", "search_spaces/presets/quick.yaml"} <= set(names)
    shipped = {name.partition(".data/data/share/dpsweep/cluster/")[2] for name in names if "share/dpsweep/cluster/" in name}
    kept = {path.name for path in (ROOT / "cluster").iterdir() if path.is_file()}
    assert shipped == kept


def test_a_project_named_sweeps_that_pip_installed_over_ours_is_named_with_the_remedy(
    environment: Environment, stranger: Callable[[str, dict[str, str]], Path]
) -> None:
    assert environment.dpsweep("--version").returncode == 0
    assert environment.code("import dpsweep; dpsweep.load_space('quick')").returncode == 0

    environment.pip("install", "--no-deps", "--no-index", stranger("sweeps", WANDB_SWEEPS))
    said = message_of(environment.dpsweep("run", "quick", "--dry-run"))
    assert "sweeps/__init__.py was overwritten by the distribution sweeps 0.0.7" in said
    assert "pip uninstall sweeps" in said
    assert message_of(run(environment.python, "-m", "dpsweep", "--help")) == said
    broken = environment.code("import dpsweep; dpsweep.load_space('quick')")
    assert "ForeignPackage: the package sweeps is not dpsweep's own" in broken.stderr

    environment.pip("uninstall", "-y", "sweeps")
    assert "the package sweeps is incomplete" in message_of(environment.dpsweep("--version"))


def test_a_stranger_that_overwrote_any_other_file_is_named(
    environment: Environment, stranger: Callable[[str, dict[str, str]], Path]
) -> None:
    environment.pip("install", "--no-deps", "--no-index", stranger("dpcore", {"dpcore/errors.py": "class Error(Exception): ...\n"}))
    asked_by_doctor = environment.code(FIND_STRANGERS)
    assert "dpcore/errors.py is not the file that dpsweep installed" in asked_by_doctor.stdout
    said = message_of(environment.dpsweep("--version"))
    assert "dpcore/errors.py is not the file that dpsweep installed by the distribution dpcore 0.0.7" in said


def test_a_folder_named_sweeps_that_comes_first_on_the_path_is_named(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "mine" / "sweeps").mkdir(parents=True)
    (tmp_path / "mine" / "sweeps" / "__init__.py").write_text("")
    done = run(environment.python, "-m", "dpsweep", "--help", PYTHONPATH=str(tmp_path / "mine"))
    said = message_of(done)
    assert f"found {tmp_path / 'mine' / 'sweeps' / '__init__.py'}" in said
    assert f"take {tmp_path / 'mine'} off the path" in said
