"""The same config has the same fingerprint as ever: what a release adds must not rename the runs of earlier sweeps."""

import json
import random
from pathlib import Path

import pytest

from dpcore.config import OptimizerConfig, Part, TrialConfig
from dpcore.errors import BadInput
from search_spaces.loader import load_space
from search_spaces.presets import preset_names

GOLDEN = Path(__file__).parent.parent / "golden" / "preset_fingerprints.json"
"""Made at commit e1ccbb3, before names became entries of tables. A preset that is changed on purpose gets new lines here."""


ADDED: tuple[dict[str, object], ...] = (
    {"optimizer.scale": "relative"},
    {"model.input_whitening": "public"},
    {"model.pyramid_channels": 24},
    {"model.position_prior": "public"},
    {"stages.public.until": "best"},
    {"loss": "pck_mass"},
    {"augmentation.flip_prob": 0.31},
    {"augmentation.flip_prob": 0.31, "augmentation.multiplicity": 3},
    {"loss": "pck_mass", "pck_mass.floor": 0.03},
    {"loss": "pck_mass", "pck_mass.radius_heads": 0.4},
    {"loss": "pck_mass", "pck_mass.radius_frac": 0.04},
    {"stages.public.scale": "relative"},
    {"stages.public_view.scale": "relative"},
)
"""Settings of fields that came later, each alone."""


def fingerprints(preset: str) -> dict[str, str]:
    """Of one draw per ε and method, and of the draw's settings as a file would spell them."""
    space, found = load_space(preset), {}
    for epsilon in space.sweep.epsilons:
        for method in space.methods:
            generator = random.Random(7)
            for _ in range(50):
                draw = space.draw(epsilon, generator, forced={"method": method})
                try:
                    found[f"{epsilon:g} {method}"] = space.trial_config(epsilon, draw).fingerprint()
                    break
                except BadInput:
                    continue
    return found


@pytest.mark.parametrize("preset", sorted(json.loads(GOLDEN.read_text())))
def test_configs_of_the_presets_keep_their_fingerprints(preset: str) -> None:
    assert fingerprints(preset) == json.loads(GOLDEN.read_text())[preset]


def test_every_preset_has_its_golden_lines() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(preset_names())


def test_a_field_that_was_added_counts_where_it_is_set() -> None:
    space = load_space("quick")
    config = space.trial_config(0.8, {"method": "dpsgd", "clip_norm": 0.37, "optimizer.learning_rate": 1e-3})
    spelled = config.changed(**{"evaluation.flip": False, "optimizer.drop_factor": 0.1, "optimizer.scale": "absolute"})
    assert spelled.fingerprint() == config.fingerprint()
    step = config.changed(**{"optimizer.schedule": "step"})
    others = [
        config.changed(**{"evaluation.flip": True}),
        step,
        step.changed(**{"optimizer.drop_at_frac": 0.7}),
        step.changed(**{"optimizer.drop_factor": 0.2}),
        *(config.changed(**change) for change in ADDED),
    ]
    assert len({one.fingerprint() for one in (config, *others)}) == len(others) + 1


@pytest.mark.parametrize("part", [TrialConfig, OptimizerConfig])
def test_what_was_added_is_a_field_with_a_default(part: type[Part]) -> None:
    assert part.ADDED
    assert all(not part.model_fields[name].is_required() for name in part.ADDED)
