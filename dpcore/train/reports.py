"""The reports of a trial while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from dpcore.privacy.plan import Spent

if TYPE_CHECKING:
    from dpcore.pose.pckh import PckhState

EPSILON_SPENT, NOISE_MULTIPLIER = "privacy/epsilon_spent", "privacy/noise_multiplier"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A trial after `step` steps. `weights_digest` names the evaluated weights: a replay must reach the same one. `spent` is what
    the trial did of its plan; None where nothing was reserved.

    Metrics are finite floats: `val/pckh_50`, `val/pckh_10` (fractions), the two of `spent` where there is a finite ε, and on data
    that is not protected `train/loss`,
    `train/clipped_frac`, `time/step_s`. The last report (`done`) adds `val/pckh_50/<joint>`.
    """

    step: int
    done: bool
    metrics: Mapping[str, float]
    weights_digest: str
    spent: Spent | None = None

    @property
    def finite(self) -> Report:
        """The report without metrics that are no numbers: they have no place in JSON, and say nothing."""
        return replace(self, metrics={name: float(value) for name, value in self.metrics.items() if math.isfinite(value)})

    def document(self) -> dict[str, Any]:
        """For a line of JSON."""
        spent = {} if self.spent is None else {"spent": asdict(self.spent)}
        return {"step": self.step, "done": self.done, "metrics": dict(self.metrics), "weights_digest": self.weights_digest, **spent}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Report:
        """The inverse of `document`."""
        return cls(
            step=document["step"],
            done=document["done"],
            metrics=document["metrics"],
            weights_digest=document["weights_digest"],
            spent=Spent(**document["spent"]) if "spent" in document else None,
        )


def joint_metrics(state: PckhState) -> dict[str, float]:
    """PCKh@0.5 of each joint; joints that are never visible have no score and are left out."""
    return {f"val/pckh_50/{name}": score for name, score in state.per_joint(0.5).items() if not math.isnan(score)}
