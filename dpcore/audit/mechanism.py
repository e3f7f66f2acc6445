"""Audit (a): the mechanism alone, without a network, against the exact trade-off of its claim.

Dirac canaries pass through `dpcore.privacy.mechanism.Mechanism`, many at a time and in many independent runs. A canary's score is the
likelihood ratio of the released values of its coordinate under the claim's law. `tradeoff` explains the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from dpcore.audit.canaries import (
    AMPLITUDE,
    PUBLIC_AMPLITUDE,
    Attacked,
    Eavesdropper,
    HeldRecords,
    Mask,
    Target,
    coins,
    dirac_batch,
    dirac_engine,
    fitted_to_canaries,
    marked,
)
from dpcore.audit.tradeoff import SELECTION_SHARE, Floats, choose_rule, refuted_epsilon
from dpcore.config import TrialConfig
from dpcore.privacy.randomness import SweepKey

OnProgress = Callable[[float], None]

_NUMBERS_A_STEP = 250_000
"""Rows drawn × coordinates per step, at most about this many: 1 MB. Below this size the time of the hooks matters more."""

_SMALLEST_BLOCK, _LARGEST_BLOCK, _PROJECTED_BLOCK = 256, 4096, 256


def audit_mechanism(target: Target, *, canaries: int, significance: float, progress: OnProgress) -> float:
    """The largest ε that the attack refutes at the claim's δ.

    Args:
        target: the claim.
        canaries: n over all runs. A quarter of them chooses the threshold.
        significance: largest probability of refuting a true claim.
        progress: receives the share that is done.
    """
    scores, inside = mechanism_scores(target, canaries=canaries, progress=progress)
    chosen, claim = round(SELECTION_SHARE * canaries), target.plan.spending
    rule = choose_rule(scores[:chosen], inside[:chosen], claim=claim, significance=significance)
    return refuted_epsilon(rule.errors(scores[chosen:], inside[chosen:]), claim, delta=target.plan.delta, significance=significance)


def mechanism_scores(target: Target, *, canaries: int, progress: OnProgress) -> tuple[Floats, Mask]:
    """Scores (n,) of the canaries and which of them were in, over as many runs as needed, under a fresh key."""
    key, size = SweepKey.fresh(), _block_size(target.config)
    scores, inside = [], []
    for run, start in enumerate(range(0, canaries, size)):
        is_in = coins(key, run, min(size, canaries - start))
        scores.append(_attack(_attacked(target, is_in), key, run, len(is_in)))
        inside.append(is_in)
        progress((start + len(is_in)) / canaries)
    return np.concatenate(scores), np.concatenate(inside)


def _block_size(config: TrialConfig) -> int:
    if config.traits.projects:
        return _PROJECTED_BLOCK
    return int(min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, math.sqrt(2.0 * _NUMBERS_A_STEP / config.sampling_prob))))


def _attacked(target: Target, is_in: Mask) -> Attacked:
    """A run with the canaries of `is_in` (n,). With a subspace the space has twice as many coordinates, so that some are left out."""
    config, count = target.config, len(is_in)
    projected = config.traits.projects
    eye = torch.eye(count, 2 * count if projected else count)
    rows, own_views = marked(eye, is_in, target)
    paired = config.traits.uses_views
    views = HeldRecords(records=dirac_batch(-AMPLITUDE * target.clip_norm * eye)) if paired else None
    return Attacked(
        target=replace(target, config=fitted_to_canaries(config, canaries=count, others=0, steps=target.plan.steps)),
        engine=dirac_engine(eye.shape[1], target.runtime.precision),
        records=HeldRecords(records=dirac_batch(rows), views=dirac_batch(own_views) if paired else None),
        views=views,
        public=HeldRecords(records=dirac_batch(PUBLIC_AMPLITUDE * eye)) if projected else None,
    )


def _attack(attacked: Attacked, key: SweepKey, run: int, canaries: int) -> Floats:
    mechanism, listener = attacked.mechanism(key, run), Eavesdropper(attacked, canaries)
    for step in range(attacked.target.plan.steps):
        listener.hear(step, mechanism.direction(step))
    return listener.scores
