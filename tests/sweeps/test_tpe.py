"""TPE on the newest trials: what a fit sees, and that an ask does not cost more and more."""

import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from sweeps import tpe
from sweeps.tpe import NewestTPESampler, newest

DISTRIBUTIONS = {"method": CategoricalDistribution(("a", "b")), "x": FloatDistribution(0.0, 1.0), "rank": FloatDistribution(1.0, 9.0)}


def study_of(count: int, *, sampler: type[TPESampler], best: float = 0.3) -> optuna.Study:
    """Scores are best at x = `best`; `rank` is active under method a."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(direction="maximize", sampler=sampler(multivariate=True, group=True, constant_liar=True, seed=1))
    add(study, count, best=best)
    return study


def add(study: optuna.Study, count: int, *, best: float) -> None:
    for number in range(count):
        x, method = (number * 0.618) % 1.0, "ab"[number % 2]
        params = {"method": method, "x": x, **({"rank": 1.0 + number % 8} if method == "a" else {})}
        distributions = {name: DISTRIBUTIONS[name] for name in params}
        study.add_trial(create_trial(params=params, distributions=distributions, value=-abs(x - best)))


def draws(study: optuna.Study, count: int) -> list[dict]:
    found = []
    for _ in range(count):
        trial = study.ask()
        method = trial.suggest_categorical("method", ("a", "b"))
        trial.suggest_float("x", 0.0, 1.0)
        if method == "a":
            trial.suggest_float("rank", 1.0, 9.0)
        found.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    return found


def test_where_no_more_trials_are_than_a_fit_sees_the_draws_are_optunas_own() -> None:
    assert draws(study_of(60, sampler=NewestTPESampler), 10) == draws(study_of(60, sampler=TPESampler), 10)


def test_a_fit_sees_the_newest_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "NEWEST", 60)
    moved = study_of(100, sampler=NewestTPESampler, best=0.1)
    add(moved, 60, best=0.9)
    expected = study_of(60, sampler=NewestTPESampler, best=0.9)
    # the old trials are as good as the new ones, but no longer seen: the draws go where the new ones are good
    assert sum(draw["x"] for draw in draws(moved, 20)) / 20 == pytest.approx(sum(draw["x"] for draw in draws(expected, 20)) / 20, abs=0.1)


def test_running_and_failed_trials_stay_and_the_last_finished_ones() -> None:
    study = study_of(0, sampler=NewestTPESampler)
    for number in range(6):
        trial = study.ask()
        if number == 1:
            continue
        study.tell(trial, **({"state": TrialState.FAIL} if number == 2 else {"values": 0.0}))
    assert [trial.number for trial in newest(study.trials, 2)] == [1, 2, 4, 5]
    assert [trial.number for trial in newest(study.trials, 4)] == [0, 1, 2, 3, 4, 5]
