"""The number at its ends, and when a view is flagged."""

from typing import Any

import pytest

from dpcore.privacy.disclosure import Disclosure, Reading


def reading(attacker: str, pckh: float, ssim: float = 0.5) -> Reading:
    return Reading(attacker=attacker, pckh_50=pckh, psnr_db=20.0, ssim=ssim, hidden_psnr_db=20.0, hidden_ssim=ssim)


def disclosure(*readings: Reading, **changes: Any) -> Disclosure:
    values = {"splits": ("blur",), "pckh_original": 0.6, "pckh_blind": 0.2, "hidden_frac": 1.0, "trained_on": 9, "tested_on": 9}
    return Disclosure(**{**values, "readings": readings, "datasets": ("p",), **changes})


@pytest.mark.parametrize(("pckh", "expected"), [(0.2, 0.0), (0.1, 0.0), (0.4, 0.5), (0.6, 1.0), (0.62, 1.0)])
def test_it_runs_from_blind_guessing_to_the_original(pckh: float, expected: float) -> None:
    assert disclosure(reading("view", pckh)).disclosure == pytest.approx(expected)


def test_the_best_attacker_counts() -> None:
    made = disclosure(reading("view", 0.3), reading("deconvolved", 0.5), reading("learned", 0.4))
    assert made.best.attacker == "deconvolved"
    assert made.published.attacker == "view"
    assert made.disclosure == pytest.approx(0.75)
    assert made.warning is None


def test_a_model_that_cannot_read_originals_measures_nothing() -> None:
    made = disclosure(reading("view", 0.25), pckh_original=0.29)
    assert made.disclosure is None
    assert made.warning is None


@pytest.mark.parametrize(("pckh", "ssim", "said"), [(0.57, 0.5, "92 %"), (0.3, 0.95, "SSIM of 0.95")])
def test_a_reconstruction_close_to_the_original_is_flagged_with_the_reason(pckh: float, ssim: float, said: str) -> None:
    warning = disclosure(reading("view", pckh, ssim)).warning
    assert warning is not None
    assert warning.startswith("the public view nearly shows the image")
    assert said in warning


def test_it_survives_json() -> None:
    made = disclosure(reading("view", 0.3))
    assert Disclosure.model_validate_json(made.model_dump_json()) == made
