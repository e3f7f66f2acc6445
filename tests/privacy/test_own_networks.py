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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("freeze", ["none", "early", "backbone"])
@pytest.mark.parametrize("head", ["marginal", "flat"])
def test_nan_or_inf_in_one_example_or_its_labels_reaches_no_other_row(places: Places, head: str, freeze: str, precision: str) -> None:
    config = ModelConfig.model_validate({"head": head, "freeze": freeze, "input_height_px": 32, "input_width_px": 32})
    parts = build_network(config, places, generator=torch.Generator().manual_seed(0)).split(freeze)
    with torch.no_grad():
        inputs = parts.stem(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    engine = GradientEngine(parts.tail, loss_of(codec_of(config)), precision=precision)  # type: ignore[arg-type]
    batch = pose_batch(inputs, 2)
    clean, others = engine.rows(batch), [0, 1, 3]
    for value in (float("nan"), float("inf"), 1e30):
        spoilt, moved = inputs.clone(), batch.keypoints.clone()
        spoilt[2], moved[2] = value, value
        for bad in (Batch(spoilt, batch.keypoints, batch.visible), Batch(inputs, moved, batch.visible)):
            assert torch.equal(engine.rows(bad)[others], clean[others])
            assert torch.equal(engine.residual_rows(batch, bad, 0.5)[others], engine.residual_rows(batch, batch, 0.5)[others])


def test_bf16_rows_are_float32_numbers_near_those_of_fp32(places: Places) -> None:
    config = ModelConfig(freeze="none", input_height_px=32, input_width_px=32)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rows = {}
    for precision in ("fp32", "bf16"):
        parts = build_network(config, places, generator=torch.Generator().manual_seed(0)).split("none")
        engine = GradientEngine(parts.tail, loss_of(codec_of(config)), precision=precision)  # type: ignore[arg-type]
        rows[precision] = engine.rows(pose_batch(images, 2))
    assert rows["bf16"].dtype == torch.float32
    error = float((rows["bf16"] - rows["fp32"]).norm() / rows["fp32"].norm())
    assert 1e-4 < error < 0.1
    # products in float32: bfloat16 numbers have 16 zero bits at the end, these do not
    assert bool((rows["bf16"].view(torch.int32) & 0xFFFF).any())
