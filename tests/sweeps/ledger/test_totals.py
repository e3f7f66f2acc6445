"""What a ledger's lines cost together, one total per unit: an image and a video are promised different things."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.config import SplitConfig
from dpcore.errors import Refused
from dpcore.privacy.accounting import Spending, epsilon_of
from dpcore.privacy.composition import AtOrder, Filtered, Selected, epsilon_at, price
from sweeps.ledger.charges import SelectionTerms
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.totals import published_regions, totals_of, views_text

IMAGE = Reservation(
    sweep="s", trial_id="e1-000", dataset="d", cohort="dd",
    sampling_prob=0.0613, noise_multiplier=2.1875, steps=61, epsilon=2.0, delta=1e-5,
    unit="image", examples_per_unit=1, views="[]", labels="public",
)  # fmt: skip
VIDEO = replace(IMAGE, sweep="t", unit="video", examples_per_unit=7)
HEAD = SplitConfig(name="h", transform="pixelate", cell_px=8, region="head")
BACKGROUND = SplitConfig(name="b", transform="pixelate", cell_px=8, region="background")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_an_image_and_a_video_are_not_added_up(ledger: Ledger) -> None:
    """0.1.0 said one number, which for a video was far too low."""
    ledger.reserve(IMAGE)
    ledger.reserve(VIDEO)
    image, video = totals_of(ledger.lines(), 1e-5, price)
    alone, replaced = Spending(0.0613, 2.1875, 61), Spending(0.0613, 2.1875, 61, "replace")
    assert (image.unit, video.unit, video.epsilon) == ("image", "video", None)
    assert image.epsilon == price([(alone, 1), (replaced, 1)], 1e-5) > price([(alone, 2)], 1e-5)
    assert "an image, replaced by another" in image.text()
    assert "1 lines of larger units counted as replacements" in image.text()
    assert image.text().endswith("by PLD, as if all had been fixed beforehand (caps over several sweeps are held by an RDP filter)")
    assert "no total for a video: s e1-000 is promised per image" in video.text()
    with pytest.raises(Refused, match="no one total"):
        ledger.epsilon_total(1e-5, price)
    with pytest.raises(Refused, match="cannot be held for e1-001: s e1-000 is promised per image"):
        ledger.reserve(replace(VIDEO, trial_id="e1-001"), cap=100.0, compose=price)


def test_lines_of_the_first_version_have_a_total_alone_or_once_their_unit_is_stated(ledger: Ledger) -> None:
    old = replace(IMAGE, unit="", examples_per_unit=0, views="", labels="")
    ledger.reserve(old)
    (total,) = totals_of(ledger.lines(), 1e-5, price)
    assert total.epsilon == epsilon_of(old.spending, 1e-5)
    assert total.text().endswith("by PLD")
    ledger.reserve(replace(IMAGE, sweep="new"))
    assert [one.epsilon for one in totals_of(ledger.lines(), 1e-5, price)] == [None, None]
    ledger.state_unit("dd", "image")
    (stated,) = totals_of(ledger.lines(), 1e-5, price)
    assert stated.epsilon == price([(IMAGE.spending, 2)], 1e-5)
    ledger.reserve(replace(old, sweep="later"))
    assert [one.epsilon for one in totals_of(ledger.lines(), 1e-5, price)] == [None, None]  # said of earlier lines alone


@pytest.mark.parametrize("change", ["unit = 'person'", "examples_per_unit = 9", "labels = 'private'", "views = '[\"a/head#0\"]'"])
def test_what_a_line_promises_is_under_its_hash(tmp_path: Path, ledger: Ledger, change: str) -> None:
    import sqlite3

    ledger.reserve(IMAGE)
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute(f"update lines set {change}")
    connection.close()
    assert any("something was changed" in text for text in ledger.verify(lambda charge, delta: 0.1))


def test_a_selection_per_video_says_nothing_of_an_image(ledger: Ledger) -> None:
    law = SelectionTerms(mean_trials=10.0, shape=1.0)
    ledger.reserve(IMAGE)
    ledger.reserve(replace(VIDEO, priced_by=law.text()))
    assert [one.epsilon for one in totals_of(ledger.lines(), 1e-5, price)] == [None, None]


def test_one_line_of_replacement_beside_a_selection_has_a_group_bound() -> None:
    """Full batch: the exact RDP of a replaced record is 4 times that of a removed one, and the bound may not lie below it."""
    gaussian = Spending(1.0, 7.3, 3)
    mixed = price([(replace(gaussian, relation="replace"), 1), (Filtered(512, 1e-12), 1)], 1e-5)
    exact = min(epsilon_at(order, 3 * order * 4 / (2 * 7.3**2), 1e-5) for order in range(2, 129))
    assert exact <= mixed <= 1.2 * epsilon_at(256, 3 * 256 * 4 / (2 * 7.3**2), 1e-5)
    selected = Selected(Spending(0.05, 4.1, 20), 10.0, 1.0)
    both = price([(Spending(0.05, 4.1, 20, "replace"), 1), (selected, 1)], 1e-5)
    assert price([(Spending(0.05, 4.1, 20), 1), (selected, 1)], 1e-5) < both < math.inf
    with pytest.raises(Refused, match="below order 4"):
        price([(Spending(0.05, 4.1, 20, "replace"), 1), (Filtered(3, 1.0), 1)], 1e-5)


def test_under_a_cap_other_sweeps_make_it_a_filter_and_the_refusal_says_so(ledger: Ledger) -> None:
    """Together they pass by PLD, not by RDP at the order that the cap fixes: the second sweep was planned on the first's results."""
    ledger.reserve(IMAGE)
    pld, rdp = price([(IMAGE.spending, 2)], 1e-5), price([(IMAGE.spending, 2), (AtOrder(12), 1)], 1e-5)
    assert pld < rdp
    cap = pld * 1.0001
    with pytest.raises(Refused, match="by an RDP filter"):
        ledger.reserve(replace(IMAGE, sweep="t"), cap=cap, compose=price)
    ledger.reserve(replace(IMAGE, trial_id="e1-001"), cap=cap, compose=price)


def test_views_are_remembered_by_what_they_hide(ledger: Ledger) -> None:
    ledger.publish("s", cohort="dd", dataset="d", views=views_text([HEAD]))
    ledger.reserve(replace(IMAGE, views=views_text([BACKGROUND])))
    assert published_regions(ledger.lines(cohort="dd")) == {"head", "background"}
    assert ledger.verify(lambda charge, delta: 0.1) == ()
    assert ledger.epsilon_total(1e-5, lambda charges, delta: sum(count for _, count in charges)) == 1
