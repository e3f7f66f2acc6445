"""MoveNet's readout is the original graph's decoding, batched, and as maps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcore.config import EvaluationConfig, ModelConfig
from dpcore.config.parsing import parse_config
from dpcore.errors import BadInput
from dpcore.inference.movenet import MOVENET_LAYERS, movenet_readout
from dpcore.inference.reading import PoseReading
from dpcore.pose.skeleton import COCO_17, HAND_21, MPII_16
from dpcore.weights.movenet_check import movenet_keypoints

SIDE_PX = 96
MODEL = ModelConfig(
    backbone="folded",
    weights="models/any",
    feature_layers=tuple(MOVENET_LAYERS),
    feature_stride_px=4,
    head="movenet",
    freeze="backbone",
    input_height_px=SIDE_PX,
    input_width_px=SIDE_PX,
)


def outputs(count: int = 5) -> Tensor:
    """Maps as noisy as no network gives them: the best cell lies anywhere."""
    generator = torch.Generator().manual_seed(11)
    maps = torch.randn(count, 86, 24, 24, generator=generator)
    maps[:, 18:52] *= 5
    return maps


def test_a_single_view_is_decoded_as_the_original_graph_decodes_it() -> None:
    points, scores = PoseReading.of(MODEL, EvaluationConfig(), COCO_17).points([outputs()])
    for row, maps in enumerate(outputs().double().numpy()):
        cuts = np.split(maps, np.cumsum(list(MOVENET_LAYERS.values()))[:-1])
        wanted = movenet_keypoints(dict(zip(MOVENET_LAYERS, cuts, strict=True)))
        np.testing.assert_allclose(points[row].numpy(), wanted[:, :2] * SIDE_PX - 0.5, atol=1e-3)
        np.testing.assert_allclose(scores[row].numpy(), wanted[:, 2], atol=1e-5)


def test_joints_of_another_skeleton_are_means_of_decoded_ones() -> None:
    coco, _ = PoseReading.of(MODEL, EvaluationConfig(), COCO_17).points([outputs()])
    mpii, _ = PoseReading.of(MODEL, EvaluationConfig(), MPII_16).points([outputs()])
    place = COCO_17.index
    torch.testing.assert_close(mpii[:, MPII_16.index["r_knee"]], coco[:, place["r_knee"]])
    torch.testing.assert_close(mpii[:, MPII_16.index["pelvis"]], coco[:, [place["l_hip"], place["r_hip"]]].mean(1))
    with pytest.raises(BadInput, match="no COCO heat map shows"):
        PoseReading.of(MODEL, EvaluationConfig(), HAND_21)


def test_a_joint_expected_in_the_middle_of_a_cell_has_a_gradient() -> None:
    """In bfloat16 most regressions are whole numbers of cells, so distances of 0 are common in training."""
    maps = outputs(2)
    maps[:, 18:52] = 3.0
    maps.requires_grad_()
    (gradient,) = torch.autograd.grad(movenet_readout(MODEL, COCO_17).trained_logits(maps).logsumexp(dim=(2, 3)).sum(), maps)
    assert torch.isfinite(gradient).all()
    assert gradient[:, 18:52].abs().max() > 0


@pytest.mark.parametrize("flip", [False, True])
def test_turned_views_are_fused_in_cocos_joints(flip: bool) -> None:
    """A view that is sure moves the mean more than one that is not, under the joint's own name."""
    reading = PoseReading.of(MODEL, EvaluationConfig(rotations_deg=(0, 180), flip=flip, fuse="maps"), MPII_16)
    sure, blank = torch.full((1, 86, 24, 24), -6.0), torch.full((1, 86, 24, 24), -6.0)
    for maps in (sure, blank):
        maps[:, 18:] = 0
    joint = "l_wrist" if not flip else "r_wrist"
    sure[:, COCO_17.index[joint], 5, 8] = 6.0
    said = [blank, sure] if not flip else [blank, blank, blank, sure]
    points, _ = reading.points(said)
    x = 8 if not flip else 23 - 8  # the last view is turned by 180 degrees, and mirrored
    wanted = torch.tensor([(23 - x) * 4 + 1.5, (23 - 5) * 4 + 1.5])
    assert float((points[0, MPII_16.index["l_wrist"]] - wanted).abs().max()) < 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"feature_layers": ["heat.out"]}, r"reads model.feature_layers \[heat.out, center.out, reg.out, off.out\]"),
        ({"feature_stride_px": 5}, "4, 8 or 16"),
        ({"backbone": "small", "weights": None, "feature_layers": [], "head": "marginal"}, "feature_stride_px belongs"),
    ],
)
def test_a_model_that_does_not_fit_the_head_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_config(ModelConfig, {**MODEL.model_dump(mode="json"), **change})


def test_a_loss_moves_no_map_through_a_joint_that_is_a_mixture() -> None:
    """Trained on necks, shoulders move to the neck."""
    maps = outputs(2).requires_grad_()
    logits = movenet_readout(MODEL, MPII_16).trained_logits(maps)
    torch.testing.assert_close(logits, movenet_readout(MODEL, MPII_16).joint_logits(maps))
    own = [name in COCO_17.index for name in MPII_16.joints]
    (through_mixtures,) = torch.autograd.grad(logits[:, [not one for one in own]].sum(), maps, retain_graph=True)
    (through_own,) = torch.autograd.grad(logits[:, own].sum(), maps)
    assert not through_mixtures.any()
    assert through_own.any()
