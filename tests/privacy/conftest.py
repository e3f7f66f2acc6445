"""A problem small enough to work by hand: the gradient of a Dirac example is the example itself.

The Dirac module is linear without bias and its loss is its output, so ∇ℓ(x) = x for every weight, and a private sum can be
written down. The small net has real layers, for what must hold of any network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcore.config import TrialConfig, parse_config
from dpcore.privacy.mechanism import Mechanism, Randomness, Sources
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey
from dpcore.privacy.units import Units

JOINTS = 1


@dataclass
class TensorSource:
    """Examples and (for records) their views held in memory; remembers which indices were read."""

    inputs: Tensor
    views: Tensor | None = None
    read: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs)

    def draw_geometry(self, stream: Any, count: int) -> None:
        return None

    def batch(self, indices: np.ndarray, draw: Any) -> Batch:
        self.read.append(indices.tolist())
        return _batch(self.inputs[indices])

    def view_batch(self, indices: np.ndarray, draw: Any) -> Batch:
        assert self.views is not None
        return _batch(self.views[indices])


def _batch(inputs: Tensor) -> Batch:
    count = len(inputs)
    return Batch(inputs, torch.zeros(count, JOINTS, 2), torch.ones(count, JOINTS, dtype=torch.bool))


def dirac_engine(size: int) -> GradientEngine:
    module = nn.Linear(size, 1, bias=False)
    nn.init.zeros_(module.weight)
    return GradientEngine(module, lambda m, b: m(b.inputs)[:, 0])


class Toy:
    """Builds configs, engines and mechanisms for Dirac examples."""

    source = TensorSource

    def engine(self, size: int) -> GradientEngine:
        return dirac_engine(size)

    def batch_of(self, inputs: Tensor) -> Batch:
        return _batch(inputs)

    def config(self, method: str, **changes: Any) -> TrialConfig:
        values: dict[str, Any] = {
            "method": method,
            "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 8},
            "stages": {"private": {"steps": 1000, "expected_batch_size": 8}},
        }
        if method != "nonprivate":
            values |= {"epsilon": 1.0, "delta": 1e-5, "clip_norm": 1.0}
        if "feature" in method:
            values |= {"split": {"name": "d", "transform": "downsample", "factor": 2}, "public_batch_size": 4}
        if "projected" in method:
            values |= {"subspace": {"rank": 3, "examples": 6}}
        return parse_config(TrialConfig, values).changed(**changes) if changes else parse_config(TrialConfig, values)

    def mechanism(
        self,
        config: TrialConfig,
        private: TensorSource | None,
        *,
        key: SweepKey | None = None,
        public: Tensor | None = None,
        noise_multiplier: float | None = 1.0,
        physical: int = 64,
        engine: GradientEngine | None = None,
        views: TensorSource | None = None,
        ids: np.ndarray | None = None,
        view_ids: np.ndarray | None = None,
    ) -> Mechanism:
        """`ids` (of the private records, and of the views unless they have their own) say which make up a unit."""
        size = private.inputs.shape[1] if private is not None else 6
        if views is None and private is not None and private.views is not None:
            views = TensorSource(private.views)
        generator = torch.Generator().manual_seed(5)
        public = torch.randn(20, size, generator=generator) if public is None else public
        return Mechanism(
            config,
            engine or dirac_engine(size),
            sources=Sources(
                private=private,
                views=views,
                public=TensorSource(public),
                private_units=None if ids is None else Units.of_ids(ids),
                view_units=None if ids is None or views is None else Units.of_ids(ids if view_ids is None else view_ids),
            ),
            randomness=Randomness(
                private=PrivateStreams(key=key or SweepKey(bytes(range(32))), trial_id="t") if private is not None else None,
                public=PublicStreams(config.seed),
            ),
            noise_multiplier=noise_multiplier,
            physical_batch_size=physical,
        )


@pytest.fixture
def toy() -> Toy:
    return Toy()
