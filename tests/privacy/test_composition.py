"""What fixed runs, filters and selections cost together."""

import math

import pytest
from dp_accounting import rdp
from scipy import optimize

from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import SELECTION_ORDERS, Spending, calibrate, compose, epsilon_of
from dpcore.privacy.composition import (
    ORDERS,
    Filtered,
    Selected,
    epsilon_at,
    epsilon_of_charge,
    open_filter,
    price,
    rdp_at,
    rdp_of,
)

RUN = Spending(0.06, 2.0, 60)
OTHER = Spending(0.03, 1.2, 40)
DELTA = 1e-5


def test_fixed_runs_alone_are_composed_by_pld() -> None:
    assert price([(RUN, 3), (OTHER, 1)], DELTA) == compose([(RUN, 3), (OTHER, 1)], DELTA)
    assert price([], DELTA) == 0.0


def test_the_divergence_at_an_order_is_the_closed_form_without_sampling() -> None:
    # Mironov 2017: a Gaussian has α / (2 σ²) at every order α, T of them T times that.
    assert rdp_of(Spending(1.0, 4.0, 10), 8) == pytest.approx(10 * 8 / (2 * 4.0**2))
    assert epsilon_at(8, 2.5, DELTA) == pytest.approx(2.5 + math.log(7 / 8) - math.log(DELTA * 8) / 7)


def test_a_filter_costs_at_least_plain_rdp_composition_at_the_best_order_and_more_than_pld() -> None:
    opened = open_filter([([RUN], 12), ([OTHER], 4)], DELTA)
    at_best_order = min(epsilon_at(order, rdp_at([(RUN, 12), (OTHER, 4)], order), DELTA) for order in ORDERS)
    assert opened.epsilon(DELTA) == pytest.approx(at_best_order)
    assert opened.epsilon(DELTA) > compose([(RUN, 12), (OTHER, 4)], DELTA)


def test_a_filter_is_opened_for_the_dearest_alternative_of_each_run() -> None:
    both = open_filter([([RUN, OTHER], 5)], DELTA)
    assert both.rdp == pytest.approx(5 * max(rdp_of(RUN, both.order), rdp_of(OTHER, both.order)))
    assert all(both.admits([RUN] * 4, run) for run in (RUN, OTHER))


def test_a_filter_admits_up_to_its_budget_and_not_beyond() -> None:
    opened = Filtered(8, 3 * rdp_of(RUN, 8))
    assert opened.admits([RUN, RUN], RUN)
    assert not opened.admits([RUN, RUN, RUN], OTHER)


def test_what_a_filter_guarantees_is_its_budget_however_little_went_through() -> None:
    opened = open_filter([([RUN], 10)], DELTA)
    assert price([(opened, 1)], DELTA) == opened.epsilon(DELTA) > epsilon_of(RUN, DELTA)


def test_filters_of_two_orders_compose_at_the_smaller() -> None:
    low, high = Filtered(4, 1.0), Filtered(16, 0.5)
    assert price([(low, 1), (high, 1), (RUN, 2)], DELTA) == pytest.approx(epsilon_at(4, 1.5 + 2 * rdp_of(RUN, 4), DELTA))
    with pytest.raises(BadInput, match="bounds nothing at order 16"):
        rdp_at([(low, 1)], 16)


def test_under_a_cap_a_filter_takes_the_room_there_is_at_the_order_that_lets_most_through() -> None:
    wanted, standing = [([RUN], 10)], [(RUN, 2)]
    cut = open_filter(wanted, DELTA, cap=3.0, standing=standing)
    assert price([*standing, (cut, 1)], DELTA) == pytest.approx(3.0)
    through = cut.rdp / rdp_of(RUN, cut.order)
    assert 0 < through < 10
    for order in (2, 3, 5, 20, 40):
        assert 3.0 - epsilon_at(order, rdp_at(standing, order), DELTA) <= through * rdp_of(RUN, order) + 1e-9
    assert open_filter(wanted, DELTA, cap=100.0, standing=standing) == open_filter(wanted, DELTA)
    with pytest.raises(Refused, match="leaves nothing"):
        open_filter(wanted, DELTA, cap=0.5, standing=standing)


def test_beside_an_older_filter_the_cap_holds_at_the_smaller_order() -> None:
    standing = [(Filtered(4, 0.2), 1)]
    cut = open_filter([([RUN], 10)], DELTA, cap=6.0, standing=standing)
    assert price([*standing, (cut, 1)], DELTA) <= 6.0 + 1e-9


def test_selections_compose_among_themselves_and_with_runs() -> None:
    best = Selected(RUN, 10.0, 1.0)
    one = price([(best, 1)], DELTA)
    assert one == epsilon_of_charge(best, DELTA)
    assert one == pytest.approx(rdp.RdpAccountant(SELECTION_ORDERS).compose(best.event()).get_epsilon(DELTA))
    two = price([(best, 2)], DELTA)
    assert one < two < 2 * one
    assert two < price([(best, 2), (RUN, 3)], DELTA)
    assert epsilon_of_charge(RUN, DELTA) == epsilon_of(RUN, DELTA)


@pytest.mark.parametrize(
    ("mean", "shape", "whole", "tenths"), [(24, 1.0, 16.7054, 16.0029), (24, 0.0, 15.0777, 14.4153), (6, 1.0, 14.6259, 13.556)]
)
def test_orders_between_whole_numbers_make_a_selection_at_epsilon_eight_cheaper(
    mean: float, shape: float, whole: float, tenths: float
) -> None:
    run = Spending(0.064, calibrate(0.064, 60, delta=DELTA, epsilon=8.0), 60)
    event = Selected(run, mean, shape).event()
    assert rdp.RdpAccountant(ORDERS).compose(event).get_epsilon(DELTA) == pytest.approx(whole, abs=1e-3)
    assert price([(Selected(run, mean, shape), 1)], DELTA) == pytest.approx(tenths, abs=1e-3)


@pytest.mark.parametrize("shape", [0.0, 1.0])
def test_the_bound_of_a_selection_at_tenths_is_papernots_and_steinkes_written_out(shape: float) -> None:
    """Theorem 2 of arXiv:2110.03620 over the closed form of the Gaussian without sampling, α T / (2 σ²) at any real order α."""
    run, mean = Spending(1.0, 6.0, 3), 12.0

    def divergence(order: float) -> float:
        return order * run.steps / (2 * run.noise_multiplier**2)

    if shape == 0.0:
        gamma = optimize.brentq(lambda g: (1 / g - 1) / math.log(1 / g) - mean, 1e-9, 0.999)
        mean_log = math.log(mean)
    else:
        gamma, mean_log = 1 / mean, math.log(mean)
    inner = min((1 - 1 / a) * divergence(a) + math.log(1 / gamma) / a for a in SELECTION_ORDERS)
    bound = min(
        max(0.0, divergence(a) + (1 + shape) * inner + mean_log / (a - 1) + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1))
        for a in SELECTION_ORDERS
    )
    assert price([(Selected(run, mean, shape), 1)], DELTA) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize(("order", "rdp"), [(1, 1.0), (2.5, 1.0), (100, 1.0), (8, 0.0), (8, math.inf), (8, math.nan)])
def test_impossible_filters_are_refused(order: int, rdp: float) -> None:
    with pytest.raises(BadInput, match="filter"):
        Filtered(order, rdp)


def test_a_claim_of_replacement_has_no_place_among_rdp_bounds() -> None:
    run = Spending(0.05, 3.0, 40, "replace")
    assert price([(run, 2)], 1e-5) == compose([(run, 2)], 1e-5)
    with pytest.raises(Refused, match="private selection gives no bound"):
        Selected(run, 10, 1.0)
    with pytest.raises(Refused, match="an RDP filter gives no bound"):
        open_filter([([run], 3)], 1e-5)


def test_what_happens_no_time_costs_nothing_and_less_than_that_is_refused() -> None:
    """A plan without reruns of its winner charges them no time."""
    selection = Selected(RUN, 5.0, 1.0)
    assert price([(selection, 1), (RUN, 0)], DELTA) == price([(selection, 1)], DELTA)
    assert price([(selection, 0), (RUN, 0)], DELTA) == 0.0
    for charge in (selection, RUN):
        with pytest.raises(BadInput, match="negative number of times"):
            price([(selection, 1), (charge, -1)], DELTA)


def test_orders_that_are_left_out_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    price([(Selected(Spending(0.2, 1.017224, 4), 4.0, 1.0), 1)], 1e-3)
    assert not caplog.records


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5])
def test_no_price_has_another_delta_than_one_between_0_and_1(delta: float) -> None:
    for charges in ([], [(RUN, 1)], [(Selected(RUN, 4.0, 1.0), 1)], [(Selected(RUN, 4.0, 1.0, "profile"), 1)]):
        with pytest.raises(BadInput, match=r"delta must lie in \(0, 1\)"):
            price(charges, delta)
