"""What is not released is for its owner alone (0600, 0700), also where the umask takes nothing away: each of its writers under umask 000.

`tests/e2e/test_walk_e2e.py` looks at every file of a whole sweep.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spaces

from dpcore.config import Places
from dpcore.data.folders import new_folder
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import open_shards, write_shards
from dpcore.data.synthetic import draw_record
from dpcore.privacy.randomness import SweepKey
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.records import folder as folders
from sweeps.records.cohort_ledger import bind_ledger
from sweeps.records.spec import SweepSpec

LINE = Reservation(
    sweep="s", trial_id="e1-000", dataset="d", cohort="dd",
    sampling_prob=0.0613, noise_multiplier=2.1875, steps=61, epsilon=2.0, delta=1e-5,
    unit="image", examples_per_unit=1, views="[]", labels="public",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def write_clinic(folder: Path) -> None:
    header = DatasetHeader(name="clinic", role="PRIVATE", protected=True, height_px=64, width_px=64, origin="hrnet clinic.json")
    write_shards(folder / "clinic", (draw_record("private", seed=4, index=i) for i in range(3)), header=header)
    bind_ledger(open_shards(folder / "clinic"), ledger=None, epsilon_total=None, delta=None)


def write_ledger(folder: Path) -> None:
    """Open, so that SQLite's logs lie beside it; with a witness of a sweep's own."""
    write_ledger.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", witness=folder / "ledger.witness")  # type: ignore[attr-defined]
    write_ledger.ledger.reserve(LINE)  # type: ignore[attr-defined]


def write_private_folder(folder: Path) -> None:
    with new_folder(folder / "entry", private=True) as made:
        (made / "model").mkdir()
        (made / "model" / "weights").write_bytes(b"w")


def write_key(folder: Path) -> None:
    SweepKey.fresh().save(folder / "sweep.key")


@pytest.mark.parametrize("write", [write_clinic, write_ledger, write_private_folder, write_key])
def test_what_is_not_released_is_for_its_owner_alone(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_dir() or path.stat().st_size]  # a lock is empty
    assert written
    assert [str(path) for path in written if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("private", [True, False])
def test_the_folders_of_a_protected_sweep_are_closed_whatever_lies_in_them(private: bool, tmp_path: Path) -> None:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    spec = SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path / "store", state=tmp_path / "state")
    with folders.new_folder(spec, private=private):
        assert [bool(folder.stat().st_mode & 0o077) for folder in (spec.sweep_dir, spec.state_dir)] == [not private] * 2
    for folder in (spec.sweep_dir, spec.state_dir):
        folder.mkdir(parents=True)
    folders.keep_private(spec)
    assert not any(folder.stat().st_mode & 0o077 for folder in (spec.sweep_dir, spec.state_dir))
