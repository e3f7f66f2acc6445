"""Faults in a row: random injections into small real sweeps. Each ends in a sound sweep or one message, none hangs, and the ledger is never
lower than what ran.

`INJECTIONS=N` takes the first N seeds (default 50, which take an hour on two idle cores), or those of `FIRST-LAST`.
`INJECTIONS_TABLE=FILE` adds a row for each.
"""

import os
from pathlib import Path

import pytest
from e2e_support import Cli
from full_disk import small_disk
from injections import Target, draw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FIRST, _, LAST = os.environ.get("INJECTIONS", "50").rpartition("-")
SEEDS = range(int(FIRST or 0), int(LAST) + bool(FIRST))


@pytest.fixture(scope="module")
def target(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Target:
    made = Target(cli, tmp_path_factory.mktemp("injections"))
    made.prepare()
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_an_injection_ends_in_a_sound_sweep_or_one_message(seed: int, target: Target, tmp_path: Path) -> None:
    injection = draw(seed)
    if injection.kind == "disk":
        with small_disk(tmp_path / "probe", size_kib=64):  # skips where no file system can be mounted
            pass
    outcome = target.suffer(injection)
    if "INJECTIONS_TABLE" in os.environ:
        with Path(os.environ["INJECTIONS_TABLE"]).open("a", encoding="utf-8") as table:
            table.write(f"{outcome.row()}\n")
    assert outcome.faults == [], f"{outcome.row()}\n{outcome.said[-3000:]}"
