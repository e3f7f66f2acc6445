"""The loss distributions behind a price: against dp-accounting's own, between grids, and what is read without them."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import pytest
from dp_accounting import NeighboringRelation, pld, rdp

from dpcore.privacy import losses
from dpcore.privacy.accounting import Spending, compose, epsilon_of
from dpcore.privacy.grid import FINAL_INTERVAL, INTERVALS, on_fitting_grid
from dpcore.privacy.losses import epsilon_at_interval, epsilon_of_all, rdp_epsilon

DELTA = 1.3e-5
RUNS = [
    Spending(0.064, 2.56388, 61),
    Spending(0.0117, 0.7331, 87),
    Spending(1.7e-4, 0.511, 301),
    Spending(0.517, 3.03, 17),
    Spending(0.997, 19.7, 41),
    Spending(1.0, 7.3, 13),
    Spending(0.064, 2.9713, 59, "replace"),
]


def by_the_library(run: Spending, interval: float) -> float:
    relation = NeighboringRelation.ADD_OR_REMOVE_ONE if run.relation == "add_remove" else NeighboringRelation.REPLACE_ONE
    return float(pld.PLDAccountant(relation, interval).compose(run.event()).get_epsilon(DELTA))


@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("interval", [1e-3, 7.7e-3])
def test_a_run_costs_what_dp_accounting_says(run: Spending, interval: float) -> None:
    assert epsilon_at_interval(run, DELTA, interval) == pytest.approx(by_the_library(run, interval), rel=1e-8)


def test_a_mixture_costs_what_dp_accounting_says() -> None:
    runs = (Spending(0.064, 2.56388, 610), Spending(0.0117, 0.7331, 873), Spending(1.0, 7.3, 13))
    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    for run in runs:
        accountant.compose(run.event())
    assert losses._epsilon_on(runs, DELTA, 1e-3) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-7)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_coarser_grid_never_promises_less(run: Spending) -> None:
    """Rounding goes to the private side: a grid that rounded down would print a smaller ε than the finer one."""
    found = [epsilon_at_interval(run, DELTA, interval) for interval in (1e-1, 3.1e-2, 1e-2, 3.1e-3, 1e-3)]
    assert all(coarse >= fine * (1 - 1e-9) for coarse, fine in itertools.pairwise(found))
    assert found[0] > found[-1]


@pytest.mark.parametrize(("noise", "steps"), [(0.31, 97), (0.73, 1013)])
def test_a_large_sum_is_at_least_its_closed_form_and_hardly_more(noise: float, steps: int) -> None:
    """Unsampled Gaussians (Balle and Wang 2018, Theorem 8), by mpmath, at a sum of ε in the hundreds or thousands."""
    mpmath.mp.dps = 60
    scale = mpmath.mpf(noise) / mpmath.sqrt(steps)

    def excess(epsilon: mpmath.mpf) -> mpmath.mpf:
        above = mpmath.ncdf(1 / (2 * scale) - epsilon * scale) - mpmath.exp(epsilon) * mpmath.ncdf(-1 / (2 * scale) - epsilon * scale)
        return above - mpmath.mpf(DELTA)

    epsilon = compose([(Spending(1.0, noise, 1), steps)], DELTA)
    assert epsilon > 200
    exact = float(mpmath.findroot(excess, epsilon))
    assert exact * (1 - 1e-9) <= epsilon <= exact * (1 + 1e-3)


@pytest.mark.parametrize("steps", [6007, 60_013])
def test_a_large_sum_of_sampled_runs_is_at_most_a_thousandth_above_the_finest_grid(steps: int) -> None:
    run = Spending(0.0643, 0.9528, steps)
    finest, fitting = epsilon_at_interval(run, DELTA, 1e-3), epsilon_of_all((run,), DELTA)
    assert fitting > 10
    assert finest * (1 - 1e-9) <= fitting <= finest * (1 + 1e-3)


def test_up_to_ten_the_grid_is_the_finest_and_above_it_grows_with_epsilon() -> None:
    asked: list[float] = []

    def epsilon_on(interval: float, *, true: float) -> float:
        asked.append(interval)
        return true + 3 * interval**2

    assert on_fitting_grid(lambda interval: epsilon_on(interval, true=9.97)) == 9.97 + 3 * FINAL_INTERVAL**2
    assert asked == list(INTERVALS)
    asked.clear()
    assert on_fitting_grid(lambda interval: epsilon_on(interval, true=731.0)) == pytest.approx(731.0, rel=1e-6)
    assert asked == [1e-1, 3.16e-2, 1e-2][: len(asked)]
    assert asked[-1] <= 4e-5 * 731.0


def test_a_grid_that_still_gains_is_refined() -> None:
    """Many small losses on a coarse grid: ε is far too large, so an interval in proportion to it alone would be too coarse as well."""
    asked: list[float] = []

    def epsilon_on(interval: float) -> float:
        asked.append(interval)
        return 20.0 + 1e5 * interval**2

    assert on_fitting_grid(epsilon_on) == pytest.approx(20.0, rel=6e-3)
    assert asked[-1] == 3.16e-4
    asked.clear()
    assert on_fitting_grid(epsilon_on, spread=1.7e-4) == pytest.approx(20.0, rel=6e-3)
    assert asked[0] == 1e-3


def test_a_million_small_steps_are_not_tried_on_a_grid_that_cannot_tell_them_apart() -> None:
    run = Spending(0.0213, 7.7, 300_017)
    assert epsilon_of_all((run,), DELTA) == pytest.approx(epsilon_at_interval(run, DELTA, FINAL_INTERVAL), rel=1e-3)


def test_one_run_is_priced_like_a_plan_and_two_laws_of_one_noise_like_one() -> None:
    run, other = Spending(0.0643, 0.5211, 61), Spending(0.0643, 0.5211, 59)
    assert compose([(run, 1)], DELTA) == epsilon_of(run, DELTA) > 10
    assert compose([(run, 1), (other, 1)], DELTA) == compose([(Spending(0.0643, 0.5211, 60), 2)], DELTA)


def test_a_release_without_noise_is_infinite_beside_others() -> None:
    assert compose([(Spending(0.1, 0.0, 3), 2), (Spending(0.1, 2.0, 3), 2)], DELTA) == math.inf
    assert compose([(Spending(0.1, 0.0, 0), 2), (Spending(0.0, 0.0, 7), 2)], DELTA) == 0.0


REMEMBERING = """
import sys
from pathlib import Path
from dpcore.privacy.accounting import Spending, calibrate, epsilon_of
from dpcore.privacy.composition import Selected, epsilon_of_charge, price
cache, run = Path(sys.argv[1]), Spending(0.0643, 2.1, 7)
print(calibrate(0.0643, 7, delta=1e-5, epsilon=0.83, cache_dir=cache), epsilon_of(run, 1e-5, cache_dir=cache))
for charges in ([(run, 3)], [(run, 1)], [(Selected(run, 5.0, 1.0), 1), (run, 2)], [(Selected(run, 5.0, 1.0, "profile"), 1)]):
    print(price(charges, 1e-5, cache_dir=cache))
print(epsilon_of_charge(Selected(run, 5.0, 1.0), 1e-5, cache_dir=cache))
print("accountant" if "dp_accounting" in sys.modules else "cache", file=sys.stderr)
"""


def test_what_is_remembered_is_read_without_the_accountant(tmp_path: Path) -> None:
    """dp-accounting takes a second to import: `status` and `ledger` would take it each time."""
    command = [sys.executable, "-c", REMEMBERING, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(2))
    assert first.stdout == second.stdout
    assert (first.stderr.strip(), second.stderr.strip()) == ("accountant", "cache")


def test_an_order_whose_divergence_rounds_below_zero_gives_no_epsilon_of_zero(caplog: pytest.LogCaptureFixture) -> None:
    """dp-accounting's own answer here is 0, from one of two orders of 66 that came out at -1e-14 and -3e-13."""
    event, orders = Spending(0.00144, 1e6, 17379, "add_remove").event(), (*range(2, 64), 128, 256, 512)
    accountant = rdp.RdpAccountant(orders)
    accountant.compose(event)
    assert min(accountant.rdp) < 0.0
    assert rdp_epsilon(event, 1e-9, orders=orders) == pytest.approx(math.log1p(-1 / 512) - math.log(512e-9) / 511, rel=1e-6)
    assert rdp_epsilon(event, 1e-9, orders=(37,)) == math.inf
    assert not caplog.records
