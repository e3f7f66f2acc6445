"""The samplers by name: how draws of a space depend on each other. Who makes them lies with `builder`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dpcore.config.registry import Table


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """One way to draw settings.

    Attributes:
        name: as `sweep.sampler` has it.
        draws: `adaptive`: a draw follows what came before, so a study may begin with settings from elsewhere; `independent`: each from
            the space alone; `listed`: a fixed list, the whole grid, with an end of its own.
        builder: `module:name` of a function from a `sweeps.search.samplers.Request` to an Optuna sampler, or the function.
    """

    name: str
    draws: Literal["adaptive", "independent", "listed"]
    builder: str | Callable[[Any], Any]

    @property
    def is_adaptive(self) -> bool:
        """Whether draws follow what came before."""
        return self.draws == "adaptive"

    @property
    def is_listed(self) -> bool:
        """Whether it runs the whole grid, so that the space may hold choices only."""
        return self.draws == "listed"


SAMPLERS = Table(
    "sampler",
    Sampler,
    (
        Sampler(name="tpe", draws="adaptive", builder="sweeps.search.samplers:tpe"),
        Sampler(name="random", draws="independent", builder="sweeps.search.samplers:independent"),
        Sampler(name="grid", draws="listed", builder="sweeps.search.samplers:independent"),
    ),
)
