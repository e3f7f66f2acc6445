"""What the workers of a Ray of our own import before there is a trial."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import spaces

from dpcore.config import Places
from sweeps.engine.ray_session import connected, modules_to_preload
from sweeps.records.spec import SweepSpec

CORES = 8


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)))


def spec_with(**changes: Any) -> SweepSpec:
    places = Places(data_dir=Path("data"), cache_dir=Path("cache"))
    return SweepSpec(name="s", space=spaces.space(), places=places, storage=Path("store"), **changes)


@pytest.mark.parametrize("changes", [{}, {"max_concurrent": 4}, {"cpus_per_trial": 2}])
def test_workers_import_what_trials_need_where_most_of_them_will_run_one(changes: dict[str, Any]) -> None:
    assert modules_to_preload(spec_with(**changes)) == ("sweeps.engine.trainable", "dpcore.train.trainer")


@pytest.mark.parametrize(
    "changes", [{"max_concurrent": 3}, {"cpus_per_trial": 3}, {"gpus_per_trial": 0.5}, {"address": "auto"}], ids=lambda c: next(iter(c))
)
def test_nothing_is_imported_by_workers_without_a_trial_on_gpus_or_in_the_ray_of_others(changes: dict[str, Any]) -> None:
    assert modules_to_preload(spec_with(**changes)) == ()


@pytest.mark.slow
def test_a_fresh_actor_finds_the_modules_imported() -> None:
    import ray

    @ray.remote
    def imported() -> bool:
        return "sweeps.engine.simulation" in sys.modules

    with connected(None, preload=("sweeps.engine.simulation",)):
        assert ray.get(imported.remote())
