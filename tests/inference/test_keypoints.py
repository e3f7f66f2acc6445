"""The backbone and head `keypoints`: what a network says in views, and joints as mixtures of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcore.config import EvaluationConfig, ModelConfig, Places
from dpcore.config.parsing import identity_of, parse_config
from dpcore.errors import BadInput
from dpcore.inference.joint_mixer import JointMixer
from dpcore.inference.movenet import MOVENET_LAYERS
from dpcore.inference.reading import PoseReading
from dpcore.model.head import HeadShape
from dpcore.model.head_start import coco_points
from dpcore.model.network import build_network
from dpcore.pose.skeleton import COCO_17, MPII_16
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.inputs import InputBuilder

SIDE_PX = 64


def mixer(seed: int | None = None) -> JointMixer:
    """At its start, or with arbitrary numbers."""
    shape = HeadShape(channels=51, grid_height=2, grid_width=2, height_px=SIDE_PX, width_px=SIDE_PX, bins_x=128, bins_y=128)
    made = JointMixer(shape)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def people(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 17, 2, generator=torch.Generator().manual_seed(5)) - 0.5


def test_it_has_138_numbers_and_starts_at_the_public_places() -> None:
    start = mixer()
    assert sum(parameter.numel() for parameter in start.parameters()) == 138
    with torch.no_grad():
        points = start.points(people())
    by_name = {name: points[:, index] for name, index in MPII_16.index.items()}
    coco = {name: people()[:, index] for name, index in COCO_17.index.items()}
    torch.testing.assert_close(by_name["l_knee"], coco["l_knee"])
    torch.testing.assert_close(by_name["pelvis"], (coco["l_hip"] + coco["r_hip"]) / 2)


def test_the_crown_lies_half_a_head_above_the_face_and_the_neck_below_it() -> None:
    """A person of stature 1, upright, y down, by the body segments of Drillis and Contini."""
    person = torch.zeros(1, 17, 2)
    heights = {"nose": 0.935, "eye": 0.935, "ear": 0.935, "shoulder": 0.818, "hip": 0.530}
    for name, joint in COCO_17.index.items():
        person[0, joint, 1] = -heights.get(name.removeprefix("l_").removeprefix("r_"), 0.0)
    with torch.no_grad():
        points = mixer().points(person)[0]
    assert float(points[MPII_16.index["head_top"], 1]) == pytest.approx(-1.0, abs=1e-4)
    assert float(points[MPII_16.index["upper_neck"], 1]) == pytest.approx(-0.853, abs=1e-3)


@pytest.mark.parametrize("angle", [0.3, 1.5, 3.0])
def test_what_is_learned_holds_for_turned_moved_and_enlarged_people(angle: float) -> None:
    turn = torch.tensor(
        [
            [torch.cos(torch.tensor(angle)), -torch.sin(torch.tensor(angle))],
            [torch.sin(torch.tensor(angle)), torch.cos(torch.tensor(angle))],
        ]
    )
    with torch.no_grad():
        learned = mixer(seed=1)
        moved = learned.points(1.7 * people() @ turn.T + 0.2)
        torch.testing.assert_close(moved, 1.7 * learned.points(people()) @ turn.T + 0.2, atol=1e-5, rtol=1e-4)


def test_a_mirrored_person_has_the_mirrored_joints_with_left_and_right_swapped() -> None:
    mirror = torch.tensor([-1.0, 1.0])
    with torch.no_grad():
        learned = mixer(seed=1)
        mirrored = learned.points(people()[:, list(COCO_17.mirrored)] * mirror)
        torch.testing.assert_close(mirrored, learned.points(people())[:, list(MPII_16.mirrored)] * mirror, atol=1e-5, rtol=1e-4)


def test_logits_peak_at_the_joints_and_an_uncertain_joint_has_a_wider_peak() -> None:
    start = mixer()
    points, certain = people(), torch.ones(3, 17)
    with torch.no_grad():
        x, _ = start(torch.cat([points[..., 0], points[..., 1], certain], dim=1)[:, :, None, None])
        wide, _ = start(torch.cat([points[..., 0], points[..., 1], 0.1 * certain], dim=1)[:, :, None, None])
    peak_px = (x.argmax(dim=-1) + 0.5) * SIDE_PX / 128
    knee = MPII_16.index["r_knee"]
    torch.testing.assert_close(peak_px[:, knee], (points[:, COCO_17.index["r_knee"], 0] + 1) * SIDE_PX / 2, atol=0.5, rtol=0)
    assert bool((torch.softmax(x, -1).amax(-1) > torch.softmax(wide, -1).amax(-1)).all())


def test_rows_are_those_of_single_examples() -> None:
    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return torch.stack([torch.softmax(one, -1).square().sum(dim=(1, 2)) for one in module(batch.inputs)]).sum(dim=0)

    engine = GradientEngine(mixer(seed=1), loss)
    inputs = torch.cat([people()[..., 0], people()[..., 1], torch.full((3, 17), 0.7)], dim=1)[:, :, None, None]
    batch = Batch(inputs, torch.zeros(3, 16, 2), torch.ones(3, 16, dtype=torch.bool))
    single = torch.stack([engine.sum_gradient(batch[i : i + 1]) for i in range(3)])
    assert float(single.norm()) > 0.01
    torch.testing.assert_close(engine.rows(batch), single, atol=1e-5, rtol=1e-4)


def test_shares_of_every_joint_sum_to_one() -> None:
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in coco_points(MPII_16))


ASKED: dict[str, Any] = {
    "backbone": "keypoints",
    "weights": "models/movenet_lightning",
    "feature_layers": list(MOVENET_LAYERS),
    "head": "keypoints",
    "freeze": "backbone",
    "input_height_px": 192,
    "input_width_px": 192,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head": "movenet"}, "backbone keypoints and head keypoints belong together"),
        ({"backbone": "folded", "feature_stride_px": 4}, "backbone keypoints and head keypoints belong together"),
        ({"freeze": "none"}, "give model.freeze backbone, given none"),
        ({"asked": {"inputs": "both", "view": {"name": "b", "transform": "gaussian_blur", "sigma_px": 3}}}, "belong to evaluation"),
        (
            {"asked": {}, "backbone": "folded", "head": "movenet", "feature_stride_px": 4},
            "belong to model.backbone keypoints, given folded",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    parse_config(ModelConfig, ASKED)
    with pytest.raises(BadInput, match=said):
        parse_config(ModelConfig, {**ASKED, **change})


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"rotations_deg": [0, 360]}, "give each angle once"),
        ({"rotations_deg": []}, "rotations_deg"),
        ({"margin": 0.9}, "margin"),
        ({"side_px": 200}, "side_px"),
        ({"times": 0}, "times"),
        ({"flip": True}, "flip"),
    ],
)
def test_a_look_that_cannot_be_had_is_refused(look: dict[str, Any], said: str) -> None:
    assert parse_config(ModelConfig, {**ASKED, "asked": {"second_look": {"rotations_deg": "0, 15"}}}).asked is not None
    with pytest.raises(BadInput, match=said):
        parse_config(ModelConfig, {**ASKED, "asked": {"second_look": look}})


def test_a_second_look_asks_again_and_has_a_fingerprint_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    places = Places(data_dir=shared_data, cache_dir=tmp_path)
    plain, again = (parse_config(ModelConfig, {**ASKED, "asked": asked}) for asked in ({}, {"second_look": {"side_px": 192}}))
    assert "second_look" not in str(identity_of(plain))  # runs of before keep their fingerprints
    assert identity_of(plain) != identity_of(again)
    crop = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1
    stems = [build_network(model, places, generator=torch.Generator().manual_seed(0)).split("backbone").stem for model in (plain, again)]
    with torch.no_grad():
        first, second = (stem.eval()(crop) for stem in stems)
    assert first.shape == second.shape == (1, 51, 1, 1)
    assert not torch.equal(first, second)


def test_what_is_trained_on_can_be_asked_in_fewer_views_than_what_is_scored(shared_data: Path, tmp_path: Path) -> None:
    places = Places(data_dir=shared_data, cache_dir=tmp_path)

    def builder_of(values: dict[str, Any]) -> InputBuilder:
        model = parse_config(ModelConfig, values)
        split = build_network(model, places, generator=torch.Generator().manual_seed(0)).split(model.freeze)
        return InputBuilder.for_split(split, model=model, places=places, device=torch.device("cpu"))

    few, many = {"scales": [1.0]}, {"flip": True, "fuse": "maps"}
    both, few_alone, many_alone = (
        builder_of({**ASKED, **asked}) for asked in ({"asked": many, "asked_for_training": few}, {"asked": few}, {"asked": many})
    )
    names = [(one.stem.name, one.scored_stem.name) for one in (both, few_alone, many_alone) if one.stem and one.scored_stem]
    assert names == [(names[1][0], names[2][1]), (names[1][0],) * 2, (names[2][0],) * 2]
    assert names[1][0] != names[2][0]
    crop = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        trained, scored = (one.module(crop) for one in (both.stem, both.scored_stem) if one)
        torch.testing.assert_close(trained, few_alone.stem.module(crop) if few_alone.stem else None)
    assert not torch.equal(trained, scored)


def test_it_starts_where_the_network_itself_is_decoded_in_the_same_views(shared_data: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    places = Places(data_dir=shared_data, cache_dir=shared_data)
    asked = {"rotations_deg": (0, 90), "flip": True, "fuse": "maps"}
    images = []
    for path in sorted((shared_data / "lspet" / "images").glob("*.jpg"))[:9]:
        picture = np.array(image_module.open(path).convert("RGB").resize((192, 192)))
        images.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1)
    crops = torch.stack(images)

    def points_of(values: dict[str, Any], evaluation: EvaluationConfig) -> torch.Tensor:
        model = parse_config(ModelConfig, values)
        network = build_network(model, places, generator=torch.Generator().manual_seed(0)).eval()
        with torch.no_grad():
            return PoseReading.of(model, evaluation, MPII_16).points_in(crops, network)[0]

    itself = points_of({**ASKED, "backbone": "folded", "head": "movenet", "feature_stride_px": 4}, EvaluationConfig(**asked))
    headed = points_of({**ASKED, "asked": asked}, EvaluationConfig())
    inside = ((itself > 8) & (itself < 184)).all(dim=-1)
    assert inside.float().mean() > 0.8
    assert float((itself - headed)[inside].abs().max()) < 0.3  # of 192 px: a window of whole bins is not quite in the middle
