"""The project's own network and loss keep what the engine assumes: one row an example, no example in another's row."""

from __future__ import annotations

import pytest
import torch

from dpcore.config import ModelConfig, Places
from dpcore.model.network import build_network, codec_of
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.evaluator import loss_of


def pose_batch(engine_input: torch.Tensor, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = len(engine_input)
    return Batch(engine_input, 60 * torch.rand(count, 16, 2, generator=generator), torch.rand(count, 16, generator=generator) > 0.2)


@pytest.mark.parametrize("freeze", ["none", "early", "backbone"])
@pytest.mark.parametrize("head", ["marginal", "flat"])
def test_rows_of_our_networks_equal_a_loop_of_single_examples(places: Places, head: str, freeze: str) -> None:
    config = ModelConfig.model_validate({"head": head, "freeze": freeze})
    parts = build_network(config, places, generator=torch.Generator().manual_seed(0)).split(freeze)
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        inputs = parts.stem(images)
    engine = GradientEngine(parts.tail, loss_of(codec_of(config)))
    batch, views = pose_batch(inputs[:3], 2), pose_batch(inputs[3:], 2)
    single = [torch.stack([engine.sum_gradient(half[i : i + 1]) for i in range(3)]) for half in (batch, views)]
    scale = float(single[0].abs().max())
    torch.testing.assert_close(engine.rows(batch), single[0], atol=2e-5 * scale, rtol=1e-3)
    torch.testing.assert_close(engine.residual_rows(batch, views, 0.5), single[0] - 0.5 * single[1], atol=4e-5 * scale, rtol=1e-3)
