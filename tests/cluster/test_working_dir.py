"""What a job takes along: code and spaces, never data, results, keys or environments."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from dpcore.errors import BadInput, Refused
from sweeps.remote.working_dir import LIMIT_BYTES, WorkingDir, find_working_dir

WANTED = ("space.yaml", "dpcore/data/shards.py", "sweeps/run.py")
UNWANTED = (
    ".git/config",
    ".env",
    ".venv/bin/python",
    "env/pyvenv.cfg",
    "env/lib/torch.so",
    "data/private/0.arrow",
    "sweep_results/a/sweep.key",
    "results/table.parquet",
    "mlruns/0/meta.yaml",
    "sweep.key",
    "nested/other.key",
    "tls.pem",
    "mlflow.db",
    "sweeps/__pycache__/run.cpython-311.pyc",
    "dpsweep.egg-info/PKG-INFO",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*WANTED, *UNWANTED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_data_results_keys_and_environments_stay(folder: Path) -> None:
    assert {path.as_posix() for path in find_working_dir(folder).files} == set(WANTED)


def test_what_git_ignores_stays_and_what_it_would_add_goes(folder: Path) -> None:
    subprocess.run(["rm", "-r", str(folder / ".git")], check=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("scratch/\n")
    (folder / "scratch").mkdir()
    (folder / "scratch" / "notes.txt").write_text("x")
    (folder / "gone.py").write_text("x")
    subprocess.run(["git", "-C", str(folder), "add", "gone.py"], check=True)
    (folder / "gone.py").unlink()
    assert {path.as_posix() for path in find_working_dir(folder).files} == set(WANTED)


def test_the_package_holds_the_files_and_depends_on_nothing_else(folder: Path) -> None:
    working_dir = find_working_dir(folder)
    working_dir.pack(folder / "a.zip")
    (folder / "space.yaml").touch()
    working_dir.pack(folder / "b.zip")
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()
    with zipfile.ZipFile(folder / "a.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {name: name for name in WANTED}


def test_a_large_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs" / "a.txt").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(Refused, match=r"logs \(100\.0 MiB\)"):
        find_working_dir(tmp_path).check_size()
    WorkingDir(folder=tmp_path, files=()).check_size()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to send"):
        find_working_dir(tmp_path)
