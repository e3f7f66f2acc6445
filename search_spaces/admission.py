"""Whether a space can be sampled at all: wrong fixed values, and choices whose every draw TrialConfig or a constraint refuses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dpcore.config import TrialConfig
from dpcore.config.parsing import told
from dpcore.errors import BadInput
from search_spaces.constraints import ConstraintBroken, ConstraintFault
from search_spaces.space import Choice, Draw, Scalar, SpaceFile

DRAWS_PER_VALUE = 64
"""Tries per choice value. A space that admits one draw in 20 is missed with probability 0.95^64 = 4 %, and then the
message names the rule; the sampler itself gives up after 50 refusals, so such a space would not run either."""


@dataclass(frozen=True)
class _Refusal:
    """Why a draw is refused, without what is peculiar to this draw where a constraint refuses it."""

    rule: str
    by_constraint: bool


def admission_mistakes(space: SpaceFile) -> Iterator[str]:
    """One line per mistake that only whole draws show, for every ε of the sweep.

    Draws come from a fixed generator, so that a file loads or fails alike everywhere.
    """
    field_mistakes = list(dict.fromkeys(line for draw in _draws_of_every_method(space) for line in _field_mistakes(space, draw)))
    if field_mistakes:
        yield from field_mistakes
        return
    faults = list(_faults(space)) if space.constraints else []
    if faults:
        yield from faults
        return
    yield from _refused_everywhere(space)
    if space.sweep.sampler_traits.is_listed:
        for epsilon in space.sweep.epsilons:
            yield from _grid_mistakes(space, epsilon)


def _faults(space: SpaceFile) -> Iterator[str]:
    """One line per constraint that cannot be computed for a draw."""
    generator, found = random.Random(0), dict[str, str]()
    for epsilon in space.sweep.epsilons:
        for _ in range(DRAWS_PER_VALUE):
            try:
                space.trial_config(epsilon, space.draw(epsilon, generator))
            except ConstraintFault as fault:
                found.setdefault(fault.rule, str(fault))
            except BadInput:
                continue
    yield from (f"constraints: {line}; ask for the other case first, such as subspace.rank == full or ..." for line in found.values())


def _refused_everywhere(space: SpaceFile) -> Iterator[str]:
    """One line per choice value whose every draw is refused, with the ε where that is so; one line in all for a space of which nothing
    is left. A constraint may take a value out at some ε, as long as it leaves it at another; but not a method that is owed trials there."""
    found: dict[tuple[str, _Refusal], list[float]] = {}
    for epsilon in space.sweep.epsilons:
        refused = {where: _always_refused(space, epsilon, forced) for where, forced in _forced_values(space, epsilon)}
        rules = {refusal for refusal in refused.values() if refusal is not None}
        if rules and None not in refused.values() and (len(rules) == 1 or all(rule.by_constraint for rule in rules)):
            refused = {"trial": next(iter(rules))}
        for where, refusal in refused.items():
            if refusal is not None:
                found.setdefault((where, refusal), []).append(epsilon)
    for (where, refusal), epsilons in found.items():
        is_owed = space.sweep.method_shares == "equal" and where.startswith("search.method ")
        if where == "trial" or not refusal.by_constraint or is_owed or len(epsilons) == len(space.sweep.epsilons):
            named = ", ".join(f"{epsilon:g}" for epsilon in epsilons)
            yield f"{where}: no draw is admissible at epsilon {named}: {refusal.rule}"


def admissible_grid(space: SpaceFile, epsilon: float) -> list[Draw]:
    """The distinct draws of a grid that TrialConfig takes and that keep the constraints, in the order of the file."""
    return [draw for draw in space.grid(epsilon) if _refusal(space, epsilon, draw) is None]


def is_admissible(space: SpaceFile, epsilon: float, draw: Draw) -> bool:
    """Whether a draw, perhaps of another ε or another space, is one of this space at `epsilon` that TrialConfig takes and that
    keeps the constraints."""
    return space.contains(epsilon, draw) and _refusal(space, epsilon, draw) is None


def _grid_mistakes(space: SpaceFile, epsilon: float) -> Iterator[str]:
    asked, there = space.sweep.trials_per_epsilon, len(admissible_grid(space, epsilon))
    if asked is not None and asked > there:
        yield f"sweep.trials_per_epsilon: {asked} asked, the grid at epsilon {epsilon:g} has {there} admissible points"


def _forced_values(space: SpaceFile, epsilon: float) -> Iterator[tuple[str, Draw]]:
    choices = [(path, p) for path, p in space.parameters_at(epsilon).items() if isinstance(p, Choice)]
    if not choices:
        yield "search", {}
    for path, parameter in choices:
        for value in parameter.choice:
            yield f"search.{path} {value}", {path: value}


def _always_refused(space: SpaceFile, epsilon: float, forced: dict[str, Scalar]) -> _Refusal | None:
    """The most frequent rule, when each draw in which the forced value is active is refused."""
    generator = random.Random(0)
    rules: Counter[_Refusal] = Counter()
    for _ in range(DRAWS_PER_VALUE):
        draw = space.draw(epsilon, generator, forced=forced)
        if any(path not in draw for path in forced):
            continue
        refusal = _refusal(space, epsilon, draw)
        if refusal is None:
            return None
        rules[refusal] += 1
    return rules.most_common(1)[0][0] if rules else None


def _refusal(space: SpaceFile, epsilon: float, draw: Draw) -> _Refusal | None:
    try:
        space.trial_config(epsilon, draw)
    except ConstraintBroken as error:
        return _Refusal(error.rule, True)
    except BadInput as error:
        return _Refusal(str(error).replace("\n", "; "), False)
    return None


def _draws_of_every_method(space: SpaceFile) -> Iterator[Draw]:
    generator = random.Random(0)
    for epsilon in space.sweep.epsilons:
        for method in space.methods or (None,):
            yield space.draw(epsilon, generator, forced={"method": method})


def _field_mistakes(space: SpaceFile, draw: Draw) -> Iterator[str]:
    """Mistakes of single fields (wrong type, out of range, missing), as opposed to refused combinations."""
    try:
        TrialConfig.model_validate(space.trial_values(space.sweep.epsilons[0], draw))
    except ValidationError as error:
        for mistake in error.errors():
            if mistake["type"] != "value_error":
                yield _line(space, draw, dict(mistake))


def _line(space: SpaceFile, draw: Draw, mistake: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in mistake["loc"])
    drawn = max((known for known in draw if path == known or path.startswith(f"{known}.")), key=len, default=None)
    if mistake["type"] == "missing":
        return f"trial.{path}: missing; give it a value or search it"
    if drawn is None:
        return f"trial.{path}: {told(mistake, given=mistake['input'])}"
    return f"search.{drawn}: {told(mistake, given=draw[drawn])}"
