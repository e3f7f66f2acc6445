"""`augmentation.multiplicity`: a record's row is the mean over its copies, and one clip follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcore.errors import BadInput
from dpcore.privacy import mechanism as mechanism_module
from dpcore.privacy.clipping import BoundedSum
from dpcore.privacy.noise import add_noise
from dpcore.privacy.per_example import Batch


def drawn_source(toy: Any, inputs: Tensor, views: Tensor | None = None) -> Any:
    """Records in memory. A copy of a record is the record times its draw; the same draw serves its view."""

    class DrawnSource(toy.source):  # type: ignore[misc]
        def draw_geometry(self, stream: Any, count: int) -> Any:
            return stream.uniform(count).astype(np.float32)

        def batch(self, indices: np.ndarray, draw: Any) -> Batch:
            return _times(super().batch(indices, None), draw)

        def view_batch(self, indices: np.ndarray, draw: Any) -> Batch:
            return _times(super().view_batch(indices, None), draw)

    return DrawnSource(inputs, views)


def summed(step: Callable[[], object]) -> BoundedSum:
    """The sum that reaches the noise."""
    seen: list[BoundedSum] = []

    def watching(bounded: BoundedSum, **given: Any) -> Any:
        seen.append(bounded)
        return add_noise(bounded, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mechanism_module, "add_noise", watching)
        step()
    return seen[0]


def _times(batch: Batch, draw: np.ndarray) -> Batch:
    return Batch(batch.inputs * torch.from_numpy(draw)[:, None], batch.keypoints, batch.visible)


def step(toy: Any, method: str, copies: int, *, physical: int = 64, clip_norm: float = 0.2) -> tuple[BoundedSum, Tensor, Tensor]:
    """The sum of a first step on all of six records, the mean draw of each record, and the records (minus λ times their views)."""
    generator = torch.Generator().manual_seed(1)
    source = drawn_source(toy, torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator))
    changes: dict[str, Any] = {"clip_norm": clip_norm, "data.nominal_examples": 6, "stages.private.expected_batch_size": 6}
    if copies > 1:
        changes["augmentation"] = {"photometric_frac": 0.5, "multiplicity": copies}
    config = toy.config(method, **changes, **({"public_weight": 0.5} if method == "feature" else {}))
    made = toy.mechanism(config, source, physical=physical, views=drawn_source(toy, source.views))
    streams = made._randomness.private
    assert streams is not None
    draws = torch.from_numpy(streams.stream("augmentation", 0).uniform(6 * copies).astype(np.float32)).view(copies, 6)
    records = source.inputs - 0.5 * source.views if method == "feature" else source.inputs
    return summed(lambda: made.direction(0)), draws, records


@pytest.mark.parametrize("method", ["dpsgd", "feature"])
@pytest.mark.parametrize("physical", [1, 4, 64])
def test_copies_are_averaged_before_the_one_clip(toy: Any, method: str, physical: int) -> None:
    bounded, draws, records = step(toy, method, 3, physical=physical)
    rows = draws.mean(dim=0)[:, None] * records
    clipped = rows * (0.2 * (1 - 1e-5) / rows.norm(dim=1)).clamp(max=1.0)[:, None]
    torch.testing.assert_close(bounded.value.float(), clipped.sum(dim=0), atol=1e-6, rtol=1e-5)
    assert bounded.rows == 6


def test_one_copy_is_the_plain_step_bit_for_bit(toy: Any) -> None:
    bounded, draws, records = step(toy, "dpsgd", 1, clip_norm=100.0)
    torch.testing.assert_close(bounded.value.float(), (draws[0][:, None] * records).sum(dim=0))


def test_the_public_term_and_the_ceiling_average_over_as_many_copies(toy: Any) -> None:
    source = drawn_source(toy, torch.randn(6, 5, generator=torch.Generator().manual_seed(1)))
    changes: dict[str, Any] = {"data.nominal_examples": 6, "stages.private.expected_batch_size": 6}
    augmentation = {"photometric_frac": 0.5, "multiplicity": 4}
    made = toy.mechanism(toy.config("nonprivate", augmentation=augmentation, **changes), source, noise_multiplier=None)
    streams = made._randomness.private
    assert streams is not None
    draws = torch.from_numpy(streams.stream("augmentation", 0).uniform(24).astype(np.float32)).view(4, 6)
    torch.testing.assert_close(made.direction(0).value, (draws.mean(dim=0)[:, None] * source.inputs).mean(dim=0))


def test_copies_of_nothing_random_and_copies_of_a_public_stage_are_refused(toy: Any) -> None:
    with pytest.raises(BadInput, match="multiplicity 2 of like copies"):
        toy.config("dpsgd", augmentation={"multiplicity": 2})
    with pytest.raises(BadInput, match=r"stages\.public\.augmentation\.multiplicity: unknown key"):
        toy.config("dpsgd", **{"stages.public.augmentation": {"flip_prob": 0.5, "multiplicity": 2}})
    with pytest.raises(BadInput, match="3 copies of each record were said, given 4 examples"):
        toy.engine(5).clipped_sum(toy.batch_of(torch.zeros(4, 5)), None, 0.0, clip_norm=1.0, copies=3)
