"""The MLflow store of a storage on its first use: whole or not there, whoever else makes it and whatever dies meanwhile."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk import small_disk

from dpcore.errors import Corrupt, DiskFull, Unavailable
from sweeps.storage.urls import default_store, sqlite_url
from sweeps.tracking.default_store import make_default_store
from sweeps.tracking.mlflow_connection import connect, prepare_mlflow

pytestmark = pytest.mark.timeout(600)

CONNECT = """
import sys
from pathlib import Path
from sweeps.storage.urls import default_store, sqlite_url
from sweeps.tracking.default_store import make_default_store
from sweeps.tracking.mlflow_connection import connect, prepare_mlflow

prepare_mlflow()
path = default_store(Path(sys.argv[1]))
make_default_store(path)
connect(sqlite_url(path)).create_experiment(sys.argv[2])
"""


def connecting(storage: Path, experiment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONWARNINGS": "ignore"}
    line = [sys.executable, "-c", CONNECT, str(storage), experiment]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment, cwd=storage)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh store."""
    prepare_mlflow()
    path = default_store(tmp_path_factory.mktemp("made"))
    make_default_store(path)
    assert [one.name for one in path.parent.iterdir() if not one.name.endswith(".lock")] == ["mlflow.db"]
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of a fresh store."""
    return Path(shutil.copy(made, tmp_path / "mlflow.db"))


def test_two_sweeps_that_begin_together_share_one_store_and_a_kill_in_the_middle_leaves_none(tmp_path: Path) -> None:
    killed = connecting(tmp_path, "killed")
    while not (tmp_path / ".mlflow.db.new").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    both = [connecting(tmp_path, name) for name in ("one", "two")]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    names = {one.name for one in connect(sqlite_url(default_store(tmp_path))).search_experiments()}
    assert names == {"Default", "one", "two"}
    assert not (tmp_path / ".mlflow.db.new").exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlite leaves the connection that could not write to the collector
def test_a_disk_too_small_for_it_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    prepare_mlflow()
    with small_disk(tmp_path / "disk", size_kib=300) as disk:
        with pytest.raises(DiskFull, match=r"mlflow\.db"):
            make_default_store(default_store(disk))
        assert [path.name for path in disk.iterdir() if not path.name.endswith(".lock")] == []


def test_a_store_of_half_the_migrations_is_told_from_a_damaged_one_each_with_its_remedy(store: Path) -> None:
    make_default_store(store)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    with pytest.raises(Unavailable, match=r"schema 451aebb31d03, and this MLflow expects .*move it away"):
        make_default_store(store)
    store.write_bytes(b"")
    with pytest.raises(Unavailable, match="no whole set of tables"):
        make_default_store(store)


@pytest.mark.parametrize("where", ["first", "middle"])
def test_a_damaged_store_is_recognised(where: str, store: Path) -> None:
    content = bytearray(store.read_bytes())
    begin = 0 if where == "first" else len(content) // 8192 * 4096
    content[begin : begin + 4096] = b"\xaa" * 4096
    store.write_bytes(content)
    with pytest.raises(Corrupt, match=r"mlflow\.db is damaged .*move it away"):
        make_default_store(store)


@pytest.mark.parametrize("name", ["q?x=1", "h#a b%20ü", "50%", "a;b&c=d"])
def test_a_storage_of_any_name_has_ledger_and_store_inside_it(name: str, made: Path, tmp_path: Path) -> None:
    from sqlalchemy import create_engine

    storage = tmp_path / name
    storage.mkdir()
    shutil.copy(made, storage / "mlflow.db")
    connect(sqlite_url(default_store(storage))).create_experiment("here")
    with sqlite3.connect(storage / "mlflow.db") as connection:
        assert ("here",) in connection.execute("SELECT name FROM experiments").fetchall()
    connection.close()
    engine = create_engine(sqlite_url(storage / "ledger.sqlite"))
    with engine.begin() as lines:
        lines.exec_driver_sql("CREATE TABLE lines (x TEXT)")
    engine.dispose()
    assert {path.name for path in storage.iterdir()} == {"mlflow.db", "ledger.sqlite"}
