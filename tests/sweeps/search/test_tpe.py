"""TPE over all ε: what a fit sees, what near and far studies count, and that ranges of other ε do not leak in."""

import warnings
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial

from sweeps.search import tpe
from sweeps.search.tpe import SharedTPESampler, good_count, newest

SPACE: dict[str, BaseDistribution] = {
    "method": CategoricalDistribution(("a", "b")),
    "x": FloatDistribution(0.0, 1.0),
    "rank": IntDistribution(1, 9),
}


def studies_at(*epsilons: float, space: dict[str, BaseDistribution] = SPACE) -> dict[float, optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies: dict[float, optuna.Study] = {}
    for epsilon in epsilons:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = SharedTPESampler(epsilon, space, studies, seed=1)
        studies[epsilon] = optuna.create_study(direction="maximize", sampler=sampler)
    return studies


def add(study: optuna.Study, count: int, *, best: float, space: dict[str, BaseDistribution] = SPACE) -> None:
    """Scores are best at x = `best`; `rank` is active under method a."""
    for number in range(count):
        x, method = (number * 0.618) % 1.0, "ab"[number % 2]
        params = {"method": method, "x": x, **({"rank": 1 + number % 8} if method == "a" else {})}
        study.add_trial(create_trial(params=params, distributions={name: space[name] for name in params}, value=-abs(x - best)))


def draws(study: optuna.Study, count: int, *, top: float = 1.0) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        trial = study.ask()
        method = trial.suggest_categorical("method", ("a", "b"))
        trial.suggest_float("x", 0.0, top)
        if method == "a":
            trial.suggest_int("rank", 1, 9)
        found.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    return found


def mean_x(found: list[dict[str, Any]]) -> float:
    return sum(draw["x"] for draw in found) / len(found)


def test_a_study_without_trials_learns_from_its_neighbour() -> None:
    studies = studies_at(0.8, 1.0)
    add(studies[1.0], 40, best=0.9)
    assert mean_x(draws(studies[0.8], 20)) == pytest.approx(0.9, abs=0.1)


def test_a_study_decades_away_counts_for_nothing_and_the_draws_stay_uniform() -> None:
    studies = studies_at(0.01, 100.0)
    add(studies[100.0], 40, best=0.9)
    assert mean_x(draws(studies[0.01], 60)) == pytest.approx(0.5, abs=0.12)


def test_own_trials_outweigh_a_neighbour_who_is_best_elsewhere() -> None:
    studies = studies_at(0.4, 1.6)
    add(studies[1.6], 60, best=0.1)
    add(studies[0.4], 60, best=0.9)
    assert mean_x(draws(studies[0.4], 20)) > 0.7


def test_scores_of_other_epsilons_are_not_compared_with_own_ones() -> None:
    studies = studies_at(0.4, 1.6)
    add(studies[1.6], 60, best=0.1)
    add(studies[0.4], 60, best=0.9)
    for trial in studies[1.6].get_trials(deepcopy=False):
        trial.value = trial.value + 100.0  # the neighbour's worst is far above what is best here
    assert mean_x(draws(studies[0.4], 20)) > 0.7


def test_draws_are_uniform_until_ten_trials_have_ended() -> None:
    studies = studies_at(1.0)
    for number in range(9):
        add(studies[1.0], 1, best=0.9)
        assert len(studies[1.0].trials) == number + 1
    trial = studies[1.0].ask()
    trial.suggest_float("x", 0.0, 1.0)
    assert trial.relative_params == {}
    add(studies[1.0], 1, best=0.9)
    trial = studies[1.0].ask()
    trial.suggest_float("x", 0.0, 1.0)
    assert set(trial.relative_params) == set(SPACE)


def test_a_range_that_is_narrower_here_is_kept() -> None:
    studies = studies_at(0.8, 1.0, space={**SPACE, "x": FloatDistribution(0.0, 0.3)})
    add(studies[1.0], 40, best=0.9)
    assert all(draw["x"] <= 0.3 for draw in draws(studies[0.8], 20, top=0.3))


def test_a_fit_sees_the_newest_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "NEWEST", 60)
    studies = studies_at(1.0)
    add(studies[1.0], 100, best=0.1)
    add(studies[1.0], 60, best=0.9)
    assert mean_x(draws(studies[1.0], 20)) == pytest.approx(0.9, abs=0.1)


def test_a_few_of_many_trials_are_good_ones() -> None:
    assert [good_count(finished) for finished in (0, 1, 10, 100, 1000)] == [0, 1, 2, 15, 25]


def test_the_newest_are_the_last_finished_ones() -> None:
    study = optuna.create_study()
    for number in range(6):
        trial = study.ask()
        if number not in (1, 4):
            study.tell(trial, 0.0)
    for count, expected in ((0, []), (2, [3, 5]), (4, [0, 2, 3, 5]), (9, [0, 2, 3, 5])):
        assert [trial.number for trial in newest(study.trials, count, running=2)] == expected


def test_a_running_trial_keeps_the_next_draw_away() -> None:
    def gap(*, running: bool) -> float:
        studies = studies_at(1.0)
        add(studies[1.0], 40, best=0.5)
        found = []
        for _ in range(12):
            trial = studies[1.0].ask()
            trial.suggest_categorical("method", ("a", "b"))
            found.append(trial.suggest_float("x", 0.0, 1.0))
            if not running:
                studies[1.0].tell(trial, state=TrialState.FAIL)
        return max(found) - min(found)

    assert gap(running=True) > gap(running=False)
