"""What may leave of protected data."""

import math

import pytest

from sweeps.tracking.allow_list import allowed_error, allowed_metrics


def test_metrics_of_private_batches_stay_inside() -> None:
    given = {"val/pckh_50": 0.5, "val/pckh_50/l_wrist": 0.4, "train/loss": 1.0, "time/step_s": 0.1, "new": 1.0, "val/pckh_10": math.nan}
    assert allowed_metrics(given, protected=True) == {"val/pckh_50": 0.5, "val/pckh_50/l_wrist": 0.4}
    assert allowed_metrics(given, protected=False).keys() == given.keys() - {"val/pckh_10"}


@pytest.mark.parametrize(
    "name",
    [
        "train/loss",
        "train/clipped_frac",
        "train/batch_size",
        "train/nonfinite_rows",
        "train/sampled_ids",
        "time/step_s",
        "time/total_s",
        "val/loss",
        "private/grad_norm",
        "data/digest",
        "val/pckh_50_private",
    ],
)
def test_facts_of_private_batches_and_of_time_are_refused_by_name(name: str) -> None:
    assert allowed_metrics({name: 1.0}, protected=True) == {}


@pytest.mark.parametrize("name", ["public/loss", "public/clipped_frac", "privacy/epsilon_spent", "plan/duration_s", "val/pckh_50"])
def test_public_facts_the_budget_plans_and_accounted_scores_pass(name: str) -> None:
    assert allowed_metrics({name: 1.0}, protected=True) == {name: 1.0}


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("ValueError: keypoint 3 of jane.jpg lies at (12, 4)", "ValueError"),
        ("Refused: a retry reached other weights", "Refused"),
        ("ray.exceptions.ActorDiedError: the actor died", "ray.exceptions.ActorDiedError"),
        ("the worker died (after 3 tries)", "the worker died"),
        ("jane.jpg: not readable", "withheld"),
        ("jane", "withheld"),
        ("print: 3", "withheld"),
    ],
)
def test_of_a_failure_only_its_kind_leaves(error: str, shown: str) -> None:
    assert allowed_error(error, protected=True) == shown
    assert allowed_error(error, protected=False) == error
