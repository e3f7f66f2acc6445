"""Training losses by name: which heads they fit and what of the labels they read. Who computes them lies with `function`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from dpcore.config.parsing import Part
from dpcore.config.registry import Table

SIMCC = "simcc"
"""The loss of every config that names none, and of every config of an earlier version."""


class PckMassConfig(Part):
    """What counts as a hit for `loss: pck_mass`.

    Head sizes are labels. Where a side of a trial has none (labels of a teacher, datasets without heads), `radius_frac` stands in.
    """

    radius_heads: float = Field(default=0.5, gt=0, description="of the head size of a person whose label has one; 0.5 is PCKh@0.5")
    radius_frac: float = Field(default=0.05, gt=0, lt=1, description="of the crop's larger side, where no head size is known")
    floor: float = Field(default=0.05, gt=0, description="added to the mass: no joint costs more than -log(floor / (1 + floor))")


@dataclass(frozen=True, kw_only=True)
class TrainingLoss:
    """One loss.

    Attributes:
        name: as `loss` has it.
        function: `module:name` of a function from a head's outputs and a `dpcore.pose.losses.Targets` to losses (B,), one per example, or
            the function. No term may couple examples: the clip rests on it.
        outputs: which kinds of outputs it takes: `marginals` (logits over x and over y) and `maps` (logits over cells).
        has_hits: whether it reads `pck_mass`.
    """

    name: str
    function: str | Callable[[Any, Any], Any]
    outputs: frozenset[str] = frozenset({"marginals", "maps"})
    has_hits: bool = False


LOSSES = Table(
    "loss",
    TrainingLoss,
    (
        TrainingLoss(name=SIMCC, function="dpcore.pose.losses:simcc"),
        TrainingLoss(name="heatmap_ce", function="dpcore.pose.losses:heatmap_ce", outputs=frozenset({"maps"})),
        TrainingLoss(name="pck_mass", function="dpcore.pose.losses:pck_mass", has_hits=True),
    ),
    plural="losses",
)
