"""How hard the learned attacker tries. Torch-free: a space file may set it."""

from __future__ import annotations

from pydantic import Field

from dpcore.config import Part


class AttackSettings(Part):
    """The learned attacker's training. More steps recover more: the number in a report is a lower bound on what a determined
    attacker could do."""

    steps: int = Field(default=300, ge=0, description="0: arithmetic alone")
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    test_images: int = Field(default=256, ge=1, description="at most half of the validation people")
