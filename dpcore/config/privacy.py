"""What a guarantee is about: units, neighbours, the subspace, and the attack on public views."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from dpcore.config.parsing import Part

Relation = Literal["add_remove", "replace"]
"""What two neighbouring datasets differ in: one unit more or less, or one unit in another's place."""

PrivacyUnit = Literal["person", "image", "video"]
"""What a guarantee protects: one annotated person's crop, all crops of one photograph, or all frames of one video."""


class SubspaceConfig(Part):
    """The public gradient subspace V of the projected methods (Zhou, Wu, Banerjee, ICLR 2021)."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"gradients"})

    rank: int | Literal["full"] | None = Field(
        default=None, description="R, dimensions of the subspace; full: no projection. Projected methods need one"
    )
    examples: int = Field(default=256, ge=1, description="m: per-example public gradients that V is fitted to")
    source: Literal["public", "public_view"] = Field(
        default="public", description="whose gradients V is fitted to: the PUBLIC dataset's, or those of the private dataset's public views"
    )
    gradients: Literal["plain", "residual"] = Field(
        default="plain", description="residual: of pairs of a PUBLIC picture and its view, as the private rows of feature_projected are"
    )
    refresh_steps: int | None = Field(default=None, ge=1, description="fit again every so many steps; None: once, at the start")
    order: Literal["clip_then_project", "project_then_clip"] = Field(
        default="clip_then_project", description="whether a row is clipped before it is projected, or after"
    )

    @field_validator("rank")
    @classmethod
    def _positive_rank(cls, rank: int | str | None) -> int | str | None:
        if isinstance(rank, int) and rank < 1:
            raise ValueError(f"subspace.rank must be at least 1 or full, given {rank}")
        return rank


class AttackSettings(Part):
    """The learned attacker's training. More steps recover more: the number in a report is a lower bound on what a determined
    attacker could do."""

    steps: int = Field(default=300, ge=0, description="0: arithmetic alone")
    batch_size: int = Field(default=16, ge=1, description="pictures per step")
    learning_rate: float = Field(default=2e-3, gt=0, description="of the attacker")
    test_images: int = Field(default=256, ge=1, description="at most half of the validation people")
