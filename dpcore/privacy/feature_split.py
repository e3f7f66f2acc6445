"""The residual of a pair (x, ψ(x)) as ONE row: ∇ℓ(x) − λ∇ℓ(ψ(x)), added up before anything else sees it.

Why one row: the guarantee counts contributions of a record. If the public half were a row of its own, a record would enter
the clipped sum twice and could move it by 2C. So a pair is one record with two entries in the batch, whose losses are weighted
+1 and −λ, and every way to rows (`dpcore.gradients`) adds up the entries of a record.

λ (`public_weight`) makes the public gradient a control variate (Mahloujifar et al., arXiv:2506.19836, has λ = 1). The
sensitivity is C for every λ, because the clip comes after the merge.
"""

from __future__ import annotations


def pair_weights(public_weight: float) -> tuple[float, float]:
    """Loss weights of a record's two entries, x and ψ(x): +1 and −λ."""
    return 1.0, -public_weight


def entry_weights(public_weight: float, copies: int) -> tuple[float, ...]:
    """Loss weights of a record's entries: so many augmented copies of x, and for λ > 0 as many of ψ(x).

    A record's row is the mean over its copies: of gradients, or of residuals of pairs under one draw. It is added up before the one
    clip, so that a record is one row of norm at most C however many copies it has.
    """
    halves = pair_weights(public_weight) if public_weight else (1.0,)
    return tuple(weight / copies for weight in halves for _ in range(copies))
