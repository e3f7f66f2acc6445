"""The winner of a private selection says the selection's ε, as the ledger holds it, in everything that people and programs read."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import fake_trials
import pytest
import spaces
from ruamel.yaml import YAML

from dpcore.config import Places
from dpcore.privacy.composition import price
from dpcore.privacy.randomness import SweepKey
from search_spaces.space import SpaceFile
from sweeps.api.results import read_results
from sweeps.cli import main
from sweeps.engine.schedule import Schedule
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.plan import Accountant, priced
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import Selection
from sweeps.records.results import SweepResults
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status
from sweeps.search.terms import terms_of

ACCOUNTANT = Accountant(plan=fake_trials.plan, compose=price, spent=fake_trials.spent)
KEY = SweepKey(bytes(range(32)))


def selection_space() -> SpaceFile:
    """One ε of awkward digits, four runs on average."""
    sweep = {
        "epsilons": [1.37],
        "accounting": "private_selection",
        "trials_per_epsilon": None,
        "selection": {"mean_trials": 4, "shape": 1.0},
    }
    return spaces.space(sweep=sweep, references={"floor": False, "ceiling": False, "control": False, "winner_seeds": 0})


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    """A selection that has run, with its tables, models and ledger."""
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    made = SweepSpec(name="s", space=selection_space(), places=places, storage=tmp_path / "store")
    made.save()
    ledger = Ledger(made.resolved_ledger_url)
    reservations = Reservations(made, ledger, ACCOUNTANT, validation=None, cohort="c", key_id=KEY.key_id())
    schedule = Schedule(made, ACCOUNTANT, reservations, terms=terms_of(made), selection=Selection(made, KEY))
    schedule.restore(key_lost=False)
    while (record := schedule.next()) is not None:
        schedule.report(record.trial_id, fake_trials.report_of(record, 3, {"val/pckh_50": fake_trials.score_of(record.config)}, done=True))
        schedule.end(record.trial_id)
    schedule.take_released()
    schedule.close()
    results = SweepResults(name="s", records=schedule.records, accounting="private_selection", delta=1e-5, planned=1)
    priced(results, ledger, ACCOUNTANT).write_parquet(made.sweep_dir / "results")
    return made


@pytest.fixture
def printed(spec: SweepSpec, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        assert main([*arguments, "--storage", str(spec.storage)]) == 0
        return capsys.readouterr().out

    return run


def in_ledger(spec: SweepSpec) -> float:
    (line,) = (line for line in Ledger(spec.resolved_ledger_url).lines() if line.kind == "reserve")
    return float(line.epsilon)


def test_best_status_and_report_say_what_the_ledger_says(spec: SweepSpec, printed: Callable[..., str], tmp_path: Path) -> None:
    selected = in_ledger(spec)
    assert selected > 1.37 + 0.5
    document = json.loads(printed("best", "s", "--epsilon", "1.37", "--json"))
    assert (document["epsilon_spent"], document["epsilon_target"], document["price"]["epsilon"]) == (selected, 1.37, selected)
    text = printed("best", "s", "--epsilon", "1.37", "--out", str(tmp_path / "best.yaml"))
    assert f"{selected:.4f} spent by the selection that it won (target of a single run: 1.37)" in text
    assert f"price        sweep epsilon {selected:.3g}" in text
    release = YAML(typ="safe").load(tmp_path / "best.yaml")["release"]
    assert (release["epsilon_spent"], release["price"]["epsilon"], release["delta"]) == (selected, selected, 1e-5)
    assert sweep_status(spec, ACCOUNTANT)["sweep_epsilon"] == selected
    report = printed("report", "s")
    row = next(line for line in report.splitlines() if line.startswith("1.37"))
    assert f"{selected:.3f}" in row
    markdown = (spec.sweep_dir / "report" / "report.md").read_text()
    assert f"{selected:.3f}" in next(line for line in markdown.splitlines() if line.startswith("| 1.37"))
    assert not re.search(r"\b1\.370\b", report + markdown)  # the single run's, as the tables would print it


def test_tables_of_an_earlier_version_that_said_the_single_run_are_read_as_the_selection(spec: SweepSpec) -> None:
    from dataclasses import replace

    from sweeps.records.results import read_results as tables

    written = tables(spec.sweep_dir)
    single = tuple(replace(record, epsilon_spent=1.37) for record in written.records)
    replace(written, records=single).write_parquet(spec.sweep_dir / "results")
    assert read_results("s", storage=spec.storage).best(1.37).epsilon_spent == in_ledger(spec)


def test_a_price_that_has_changed_since_replaces_the_one_in_the_file_and_settings_never(
    spec: SweepSpec, printed: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "best.yaml"
    printed("best", "s", "--epsilon", "1.37", "--out", str(out))
    whole = out.read_text()
    out.write_text(whole.replace("accounting: private_selection", "accounting: composed"))
    printed("best", "s", "--epsilon", "1.37", "--out", str(out))
    assert out.read_text() == whole
    out.write_text(whole.replace("clip_norm: ", "clip_norm: 1"))
    assert main(["best", "s", "--epsilon", "1.37", "--out", str(out), "--storage", str(spec.storage)]) == 2
