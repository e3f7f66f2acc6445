"""The ways to account for a sweep, by name: what a space must hold under each. What it costs lies with `pricing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dpcore.config.registry import Table


def _nothing(space: Any) -> Iterable[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Regime:
    """One way to account for a sweep.

    Attributes:
        name: as `sweep.accounting` has it.
        pricing: `module:name` of a `sweeps.pricing.regimes.Pricing`: what is charged and what is said. Or the object itself.
        reads_private: whether trials read the private data. If not, `data.proxy` stands in its place and choosing costs nothing.
        is_selection: the number of trials is secret and drawn from `sweep.selection`; the winner alone leaves. Draws must then be
            independent: stoppers, warm starts and samplers that learn are refused, and nothing of a loser is shown.
        is_promise: whether the sweep as a whole guarantees anything.
        public_scores: why scores on private validation data are refused, after the regime's name; None: they are not.
        refusals: further mistakes of a whole space (`SpaceFile`), one line each.
    """

    name: str
    pricing: str | Any
    reads_private: bool = True
    is_selection: bool = False
    is_promise: bool = True
    public_scores: str | None = None
    refusals: Callable[[Any], Iterable[str]] = _nothing


REGIMES = Table(
    "regime",
    Regime,
    (
        Regime(name="composed", pricing="sweeps.pricing.regimes.composed:Composed"),
        Regime(
            name="public_proxy",
            pricing="sweeps.pricing.regimes.public_proxy:PublicProxy",
            reads_private=False,
            public_scores="reads PUBLIC data alone",
        ),
        Regime(
            name="private_selection",
            pricing="sweeps.pricing.regimes.private_selection:PrivateSelection",
            is_selection=True,
            public_scores="needs scores that cost nothing, as it hides how many",
        ),
        Regime(name="unaccounted", pricing="sweeps.pricing.regimes.unaccounted:Unaccounted", is_promise=False),
    ),
)
