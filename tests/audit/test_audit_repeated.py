"""The audit by repeated runs: it sees final weights alone, and sees a canary in them where the noise is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dpcore.audit.repeated import PROBLEM, audit_repeated, released_scores


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_ours_stands(claims: Any, method: str) -> None:
    target = claims.target(PROBLEM.config(claims.config(method)))
    assert audit_repeated(target, runs=20, significance=1e-5, progress=lambda share: None) <= target.plan.epsilon_planned


def test_a_release_without_noise_is_caught(claims: Any, scale_noise: Callable[[float], None]) -> None:
    config = claims.config("dpsgd", 0.4, **{"stages.private.expected_batch_size": 1000, "optimizer.name": "sgd"})
    scale_noise(1e-3)
    target = claims.target(PROBLEM.config(config))
    assert audit_repeated(target, runs=60, significance=1e-2, progress=lambda share: None) > target.plan.epsilon_planned


def test_the_canary_pushes_its_weight_against_its_gradient(claims: Any, scale_noise: Callable[[float], None]) -> None:
    scale_noise(1e-3)
    target = claims.target(PROBLEM.config(claims.config("dpsgd", **{"stages.private.expected_batch_size": 1000, "optimizer.name": "sgd"})))
    scores, inside = released_scores(target, runs=12, progress=lambda share: None, problem=PROBLEM)
    assert inside.any()
    assert not inside.all()
    assert scores[inside].min() > scores[~inside].max()
    assert np.isfinite(scores).all()
