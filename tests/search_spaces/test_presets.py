"""What the header of a preset says: commands that exist, and what the preset needs."""

import re
import shlex

import pytest

from search_spaces.admission import admissible_grid
from search_spaces.loader import load_space
from search_spaces.presets import preset_names, preset_path
from sweeps.cli import build_parser

BENCHMARKS = ("coco", "humanart", "lspet", "lspet_imagenet", "mpii", "paper_grid")


def header_of(preset: str) -> str:
    lines = preset_path(preset).read_text(encoding="utf-8").splitlines()
    return "\n".join(line[1:] for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))])


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_says_what_it_is_and_its_commands_are_commands(preset: str) -> None:
    header = header_of(preset)
    assert header
    for command in re.findall(r"^ +dpsweep (.+)$", header, flags=re.MULTILINE):
        build_parser().parse_args(shlex.split(command))


@pytest.mark.parametrize("preset", [name for name in preset_names() if name in BENCHMARKS])
def test_a_benchmark_says_what_it_costs_and_declares_its_validation(preset: str) -> None:
    assert re.search(r"Cost \(estimates|minutes on two cores", header_of(preset))
    assert load_space(preset).sweep.validation == "public"


def test_the_published_grid_has_its_axes_and_recipe() -> None:
    space = load_space("paper_grid")
    assert space.sweep.epsilons == (0.2, 0.4, 0.6, 0.8)
    for epsilon in space.sweep.epsilons:
        points = {(draw["method"], draw["clip_norm"], draw["model.freeze"]) for draw in admissible_grid(space, epsilon)}
        assert len(points) == len(admissible_grid(space, epsilon)) == 4 * 3 * 3
    config = space.trial_config(0.8, {"method": "dpsgd", "clip_norm": 0.01, "model.freeze": "ft"})
    assert (config.sampling_prob, config.stages.private.steps, config.delta) == (32 / 22_246, 17_379, 4e-5)
    assert (config.model.head, config.model.input_height_px, config.model.input_width_px) == ("flat", 256, 192)
    assert (config.optimizer.name, config.optimizer.schedule, config.optimizer.drop_at_frac) == ("adam", "step", 20 / 25)
    assert config.evaluation.flip
    assert config.augmentation.rotate_prob == 0.6


def test_the_imagenet_start_trains_one_linear_map_a_level_from_public_knowledge_alone() -> None:
    config = load_space("lspet_imagenet").trial_config(0.8, {"method": "dpsgd", "clip_norm": 1.0, "optimizer.learning_rate": 0.8})
    assert (config.labels, config.model.head, config.model.freeze, config.model.weights) == (
        "private",
        "linear2d",
        "backbone",
        "models/efficientnet_lite0_imagenet",
    )
    assert (config.model.input_whitening, config.model.position_prior) == ("public", "mpii/mpii_pose_pool.npz")
    assert config.stages.public.until == "best"
    assert config.sampling_prob == 1024 / 8500
