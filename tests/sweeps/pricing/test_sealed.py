"""The ceiling on protected data: it runs when it is asked for by name, nothing of it leaves, and showing it costs everything."""

import contextlib
import json
import math
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_trials
import pytest
import spaces
from one_process import OneProcess

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps import cli
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import run_sweep
from sweeps.ledger.ledger import Ledger
from sweeps.pricing.sealed import make_sealed_folder, unseal_ceiling
from sweeps.records.results import SweepResults, read_results
from sweeps.records.spec import SweepSpec

CEILING = 0.87654321


def trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """A fake trial whose ceiling has a score of its own, also in its folder; without `sealed` it would be refused."""
    if config.method == "nonprivate" and not handout.sealed:
        raise Refused("protected")
    for report in fake_trials.run_trial(config, runtime, handout):
        if handout.sealed:
            scores = {"val/pckh_50": CEILING, "val/pckh_10": CEILING / 2}
            report = replace(report, metrics=scores, weights_digest="weights-without-privacy")
            (handout.folder / "model.safetensors").write_text(str(CEILING))
        yield report


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    monkeypatch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
    monkeypatch.setattr(driver_module, "run_tune", OneProcess())
    monkeypatch.setattr(fake_trials, "sealed_trial", trial, raising=False)
    references = {"floor": True, "ceiling": "non_private", "control": False, "winner_seeds": 0}
    return SweepSpec(
        name="s",
        space=spaces.space(references=references, sweep={"trials_per_epsilon": 1}),
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        storage=tmp_path / "store",
        trial_function="fake_trials:sealed_trial",
    )


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def results(spec: SweepSpec, lines: list[str]) -> SweepResults:
    return run_sweep(spec, fake_trials.surroundings(lines, protected=True))


def test_nothing_of_a_sealed_ceiling_is_written_or_said_but_into_its_own_file(
    spec: SweepSpec, results: SweepResults, lines: list[str]
) -> None:
    record = results.trial("ceiling")
    assert (record.role, record.state, record.pckh_50) == ("sealed_ceiling", "done", None)
    assert results.ceilings == ()
    sealed = spec.sealed_dir / "ceiling.json"
    assert [path for path in sorted(spec.sealed_dir.rglob("*")) if path.is_file()] == [sealed]
    assert (stat.S_IMODE(sealed.stat().st_mode), stat.S_IMODE(spec.sealed_dir.stat().st_mode)) == (0o600, 0o700)
    assert json.loads(sealed.read_text()) == {"val/pckh_50": CEILING, "val/pckh_10": CEILING / 2}
    others = [path.read_bytes() for path in spec.storage.rglob("*") if path.is_file() and path != sealed]
    assert not [content for content in others if str(CEILING).encode() in content or b"weights-without-privacy" in content]
    shown = "\n".join(lines)
    assert "sealed" in shown
    assert "87.7" not in shown
    assert read_results(spec.sweep_dir).records == results.records


def test_the_ledger_holds_a_run_without_noise_that_costs_nothing_while_it_is_sealed(spec: SweepSpec, results: SweepResults) -> None:
    ledger = Ledger(spec.resolved_ledger_url)
    events = {line.trial_id: (line.event, line.epsilon) for line in ledger.lines() if line.kind == "reserve"}
    assert events["ceiling"] == ("non_private", None)
    assert results.composed_epsilon == pytest.approx(0.5 + 2.0)
    assert ledger.verify(lambda spending, delta: 1 / spending.noise_multiplier) == ()


def test_showing_it_is_written_down_first_and_makes_epsilon_infinite(
    spec: SweepSpec, results: SweepResults, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.save()
    before = ["report", "s", "--storage", str(spec.storage)]
    assert cli.main(before) == 0
    text = capsys.readouterr().out
    assert "run and sealed" in text
    assert "87.7" not in text + (spec.sweep_dir / "report" / "report.md").read_text()
    assert cli.main([*before, "--show-sealed"]) == 0
    shown = capsys.readouterr().out
    assert "87.7" in shown
    assert "ε = ∞" in shown
    assert "the sealed ceiling was shown" in shown
    assert [line.kind for line in Ledger(spec.resolved_ledger_url).lines() if line.trial_id == "ceiling"] == ["reserve", "settle", "unseal"]
    assert cli.main(before) == 0
    again = capsys.readouterr().out
    assert "the sealed ceiling was shown" in again
    assert "87.7" not in again


def test_results_with_an_infinite_price_come_back(tmp_path: Path, results: SweepResults) -> None:
    infinite = replace(results, composed_epsilon=math.inf, sweep_epsilon=math.inf)
    infinite.write_parquet(tmp_path / "results")
    assert read_results(tmp_path).composed_epsilon == math.inf


def test_what_was_not_sealed_or_is_capped_cannot_be_shown(spec: SweepSpec, results: SweepResults) -> None:
    with pytest.raises(BadInput, match="nothing to show"):
        unseal_ceiling(replace(results, records=()), spec)
    capped = spec.model_copy(update={"space": spaces.space(sweep={"epsilon_total": 50.0})})
    with pytest.raises(Refused, match="epsilon_total is 50"):
        unseal_ceiling(results, capped)
    (spec.sealed_dir / "ceiling.json").unlink()
    with pytest.raises(Unavailable, match="another machine"):
        unseal_ceiling(results, spec)


def test_a_worker_that_does_not_see_the_state_seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist on this worker"):
        make_sealed_folder(tmp_path / "nowhere" / "sealed" / "ceiling")


def test_a_ceiling_that_was_not_asked_for_by_name_is_refused_on_protected_data(spec: SweepSpec) -> None:
    plain = spec.model_copy(update={"space": spaces.space()})
    with pytest.raises(Refused, match=r"references\.ceiling.*=non_private"):
        run_sweep(plain, fake_trials.surroundings(protected=True))
