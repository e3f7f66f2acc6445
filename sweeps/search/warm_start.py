"""Begins a sweep with the best settings of an earlier sweep, and records whether these were chosen on private data.

Settings chosen on private results are themselves a release. Under `composed` one ledger holds both sweeps and their sum. The price of
the new sweep covers only the new sweep, and says so (`WarmStart.text`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dpcore.config import TrialConfig
from dpcore.errors import BadInput, Refused
from search_spaces.admission import is_admissible
from search_spaces.space import Choice, Draw, SpaceFile, value_at

if TYPE_CHECKING:
    from sweeps.records.results import TrialRecord
    from sweeps.records.spec import SweepSpec

BEST = 2
"""How many settings each ε takes from the earlier sweep."""


def with_warm_start(spec: SweepSpec, name: str, *, say: Callable[[str], None]) -> SweepSpec:
    """Adds the best settings of an earlier sweep in the same storage to the spec of a new sweep.

    Args:
        spec: spec of the new sweep.
        name: name of the earlier sweep.
        say: receives one line for each setting that does not fit the new space.

    Raises:
        BadInput: there is no such sweep, or it has no finished trial.
        Refused: the regime or the sampler allows no warm start, or the earlier sweep was charged to another ledger.
    """
    from sweeps.records.publication import load_spec, results_at_hand
    from sweeps.records.results import read_results
    from sweeps.records.spec import WarmStart

    _check_regime(spec, name)
    earlier = load_spec(name, spec.storage)
    is_private = earlier.space.sweep.regime.reads_private or (earlier.warm_start is not None and earlier.warm_start.is_private)
    _check_charges(spec, earlier, is_private=is_private)
    with results_at_hand(earlier) as folder:
        ended = [record for record in read_results(folder).of_role("search") if _is_scored(record)]
    if not ended:
        raise BadInput(f"--warm-start {name}: none of its search trials has a score; name a sweep that has finished trials")
    draws = {epsilon: tuple(_draws_at(spec.space, epsilon, ended, name=name, say=say)) for epsilon in spec.space.sweep.epsilons}
    before = () if earlier.warm_start is None else earlier.warm_start.sweeps
    return spec.model_copy(update={"warm_start": WarmStart(sweeps=(name, *before), is_private=is_private, draws=draws)})


def _check_regime(spec: SweepSpec, name: str) -> None:
    sweep = spec.space.sweep
    if sweep.regime.is_selection:
        raise Refused(
            f"--warm-start {name}: {sweep.accounting} is priced for independent draws from the space, and settings that an earlier sweep "
            "chose are not; leave it out, or use accounting composed"
        )
    if not sweep.sampler_traits.is_adaptive:
        raise Refused(
            f"--warm-start {name}: sampler {sweep.sampler} "
            + ("runs a fixed list" if sweep.sampler_traits.is_listed else "promises independent draws from the space")
            + ", which earlier settings would change; leave it out, or use sampler tpe"
        )


def _check_charges(spec: SweepSpec, earlier: SweepSpec, *, is_private: bool) -> None:
    if not is_private:
        return
    regime = spec.space.sweep.regime
    if not regime.reads_private:
        raise Refused(
            f"--warm-start {earlier.name}: that sweep chose its settings on private data, and {regime.name} promises that choosing costs "
            f"nothing; name one that ran under {regime.name} itself, or use accounting composed"
        )
    if earlier.resolved_ledger_url != spec.resolved_ledger_url:
        raise Refused(
            f"--warm-start {earlier.name}: that sweep was charged to another ledger, so no ledger would hold the sum; give this one the "
            "same --ledger"
        )


def _is_scored(record: TrialRecord) -> bool:
    """Whether a trial has a score. A ceiling does not count, because it has no privacy."""
    return record.state == "done" and record.score is not None and not record.config.traits.is_unbounded


def _draws_at(space: SpaceFile, epsilon: float, ended: Sequence[TrialRecord], *, name: str, say: Callable[[str], None]) -> list[Draw]:
    """The best settings of the earlier sweep's nearest ε, as draws of this space. Settings that do not fit are named and left out."""
    nearest = min((record.epsilon for record in ended if record.epsilon), key=lambda one: abs(math.log(one / epsilon)))
    ranked = sorted((record for record in ended if record.epsilon == nearest), key=lambda record: record.score or 0.0, reverse=True)
    found: list[Draw] = []
    for record in ranked[:BEST]:
        draw = draw_of(space, epsilon, record.config)
        if not is_admissible(space, epsilon, draw):
            say(f"dpsweep: --warm-start {name}: {record.trial_id} does not fit the space at epsilon {epsilon:g}; it is left out")
        elif draw not in found:
            found.append(draw)
    return found


def draw_of(space: SpaceFile, epsilon: float, config: TrialConfig) -> Draw:
    """The values of a config at the active searched parameters of a space. They may not be admissible there."""
    values = config.model_dump(mode="json")
    values["split"] = next((name for name, split in space.splits.items() if split == config.split), None)  # a name may mean another split
    draw: Draw = {}
    for path, parameter in space.parameters_at(epsilon).items():
        if space.is_active(parameter, draw):
            value = value_at(values, path)
            draw[path] = _as_listed(parameter, value) if isinstance(parameter, Choice) else value
    return draw


def _as_listed(parameter: Choice, value: Any) -> Any:
    """Finds a value in a list of choices. A config stores 1 as 1.0 in a float field, but the list may say 1."""
    return next((one for one in parameter.choice if one == value and isinstance(one, bool) == isinstance(value, bool)), value)
