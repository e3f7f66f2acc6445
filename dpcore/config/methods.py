"""The training methods by name: what of a record goes into the private sum, and what is made of it once noise is on it.

A method declares; `dpcore.privacy.mechanism` executes. The order sample → per-example gradient → clip → sum → noise → post-process
stands there once, and no method can change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dpcore.config.registry import Table

PUBLIC_ONLY, NONPRIVATE = "public_only", "nonprivate"
"""The methods of floor and ceiling."""

_NOISED_FIELDS = ("epsilon", "delta", "clip_norm")
_PROJECTED_FIELDS = ("subspace.rank",)
_VIEW_FIELDS = ("public_weight", "private_weight", "public_batch_size")
METHOD_FIELDS = (*_NOISED_FIELDS, *_PROJECTED_FIELDS, *_VIEW_FIELDS)
"""The paths of a TrialConfig that belong to some methods and not to others."""


def _fits(config: Any) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method is.

    Attributes:
        name: as `method` has it.
        private_sum: `noised`: clipped, summed, under Gaussian noise; `bare`: neither clip nor noise, so its ε is infinite; `none`: it
            takes no private steps.
        row: what one record adds to the sum: its gradient, or the residual of its pair, ∇ℓ(x) − λ∇ℓ(ψ(x)).
        uses_views: whether λ ḡ_pub, the gradient at public views, is part of the direction. Then it has λ, α and a control.
        projects: whether the sum is taken in the public subspace.
        direction: what is made of the public term and the released private term: `module:name` of a function of both, each a (P,)
            tensor or None. It is post-processing: it receives released values alone. None: their sum.
        refusal: what a TrialConfig of this method must not have beside the fields of other methods; None where it fits.
        label, colour, marker: in figures; the marker is matplotlib's.
    """

    name: str
    private_sum: Literal["noised", "bare", "none"] = "noised"
    row: Literal["gradient", "residual"] = "gradient"
    uses_views: bool = False
    projects: bool = False
    direction: str | Callable[[Any, Any], Any] | None = None
    refusal: Callable[[Any], str | None] = _fits
    label: str = ""
    colour: str = "#777777"
    marker: str = "v"

    def __post_init__(self) -> None:
        if self.row == "residual" and not self.uses_views:
            raise ValueError(f"method {self.name}: a residual is taken against public views: set uses_views")
        if self.private_sum != "noised" and (self.uses_views or self.projects):
            raise ValueError(f"method {self.name}: views and projection belong to a noised sum")

    @property
    def is_private(self) -> bool:
        """Whether it clips and adds noise, and so has a finite ε."""
        return self.private_sum == "noised"

    @property
    def is_unbounded(self) -> bool:
        """Whether it releases gradients as they are, and so has an infinite ε."""
        return self.private_sum == "bare"

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of `METHOD_FIELDS` that it has; the others must be left out."""
        own = (_NOISED_FIELDS, self.is_private), (_PROJECTED_FIELDS, self.projects), (_VIEW_FIELDS, self.uses_views)
        return tuple(path for paths, has in own if has for path in paths)

    def needs(self, path: str, *, control: bool) -> bool:
        """Whether a config must give `path` a value. A control spends nothing, so it needs neither ε nor a clip norm."""
        return path in self.fields and not (control and path in _NOISED_FIELDS)


def _starts_from_the_public_model(config: Any) -> str | None:
    return None if config.start == "public" else "method nonprivate starts from the public model: set start to public"


def _draws_no_unit(config: Any) -> str | None:
    if config.examples_per_unit == 1:
        return None
    return f"method public_only draws no unit: leave examples_per_unit out (given {config.examples_per_unit})"


# Colours of Okabe and Ito (2008), which differ for every kind of colour blindness; markers differ too.
METHODS = Table(
    "method",
    Method,
    (
        Method(name="dpsgd", label="DP-SGD", colour="#0072b2", marker="o"),
        Method(name="projected", projects=True, label="projected", colour="#009e73", marker="s"),
        Method(name="feature", row="residual", uses_views=True, label="feature", colour="#e69f00", marker="^"),
        Method(
            name="feature_projected",
            row="residual",
            uses_views=True,
            projects=True,
            label="feature projected",
            colour="#cc79a7",
            marker="D",
        ),
        Method(name=PUBLIC_ONLY, private_sum="none", refusal=_draws_no_unit),
        Method(name=NONPRIVATE, private_sum="bare", refusal=_starts_from_the_public_model),
    ),
)
