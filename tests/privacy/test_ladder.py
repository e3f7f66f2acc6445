"""A fixed successive-halving ladder: the same trials for less than their full composition."""

import pytest

from dpcore.errors import BadInput
from dpcore.privacy.accounting import Spending, calibrate, compose, epsilon_of
from dpcore.privacy.ladder import Rung, ladder_spending

RUN = Spending(0.04, 2.0, 400)
RUNGS = (Rung(trials=16, steps=50), Rung(trials=4, steps=200), Rung(trials=1, steps=400))


def test_a_ladder_takes_each_rungs_steps_once_per_trial_that_is_still_there() -> None:
    assert ladder_spending(RUN, RUNGS) == Spending(0.04, 2.0, 16 * 50 + 4 * 150 + 1 * 200)
    assert ladder_spending(RUN, (Rung(trials=16, steps=400),)) == Spending(0.04, 2.0, 16 * 400)


def test_reference_sixteen_trials_at_epsilon_two_cost_9_7_and_on_a_ladder_4_3() -> None:
    # 16 to an eighth of the horizon, 4 to its half, 1 to its end: the steps of 4 trials. Known beforehand: 9.7 and 4.3.
    steps = 600
    run = Spending(0.04, calibrate(0.04, steps, delta=1e-5, epsilon=2.0), steps)
    rungs = (Rung(trials=16, steps=75), Rung(trials=4, steps=300), Rung(trials=1, steps=600))
    assert ladder_spending(run, rungs).steps == 4 * steps
    assert compose([(run, 16)], 1e-5) == pytest.approx(9.7, abs=0.1)
    assert epsilon_of(ladder_spending(run, rungs), 1e-5) == pytest.approx(4.3, abs=0.05)


@pytest.mark.parametrize(
    "rungs",
    [
        (),
        (Rung(trials=16, steps=50),),
        (Rung(trials=4, steps=50), Rung(trials=8, steps=400)),
        (Rung(trials=4, steps=50), Rung(trials=0, steps=400)),
        (Rung(trials=4, steps=400), Rung(trials=2, steps=400)),
    ],
)
def test_ladders_that_do_not_climb_are_refused(rungs: tuple[Rung, ...]) -> None:
    with pytest.raises(BadInput, match="rung"):
        ladder_spending(RUN, rungs)
