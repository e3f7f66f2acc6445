"""Surfaces of simulated scores: the optimum is where it is said to be, for the fixed one and for every drawn one."""

import math

import pytest

from dpcore.config import TrialConfig, parse_config
from sweeps.engine.surfaces import METHODS, Surface, drawn_surface

EPSILONS = (0.2, 1.0, 16.0)


def config_at(surface: Surface, method: str, epsilon: float, **off: float) -> TrialConfig:
    """The optimum of a method at an ε; `off` moves a setting away from it, in decades, octaves or plainly."""
    budget = math.log10(epsilon)
    at = {name: getattr(surface, name) for name in ("clip_norm", "learning_rate", "rank", "public_weight")}
    best = {name: valley.best + valley.per_decade * budget + off.get(name, 0.0) for name, valley in at.items()}
    clip_shift, rate_shift = surface.shift[method]
    document = {
        "method": method,
        "epsilon": epsilon,
        "delta": 1e-5,
        "clip_norm": 10 ** (best["clip_norm"] + clip_shift),
        "optimizer": {"learning_rate": 10 ** (best["learning_rate"] + rate_shift)},
        "data": {
            "private": "synthetic/private",
            "public": "synthetic/public",
            "validation": "synthetic/validation",
            "nominal_examples": 4000,
        },
        "stages": {"private": {"steps": 100, "expected_batch_size": 256}},
    }
    if "projected" in method:
        document["subspace"] = {"rank": round(2 ** best["rank"]), "examples": 1000}
    if "feature" in method:
        document |= {"public_weight": best["public_weight"], "split": {"name": "b", "transform": "gaussian_blur", "sigma_px": 4}}
    return parse_config(TrialConfig, document)


@pytest.mark.parametrize("surface", [Surface(), *(drawn_surface(seed) for seed in range(5))])
def test_the_known_optimum_is_reached_at_its_settings_and_nowhere_exceeded(surface: Surface) -> None:
    for epsilon in EPSILONS:
        for method in METHODS:
            best = surface.best(epsilon, (method,))
            assert surface.score(config_at(surface, method, epsilon)) == pytest.approx(best, abs=2e-3)  # ranks are whole
            for off in ({"clip_norm": 0.5}, {"clip_norm": -0.5}, {"learning_rate": 0.4}, {"clip_norm": 0.5, "learning_rate": -0.3}):
                assert surface.score(config_at(surface, method, epsilon, **off)) < best
        assert surface.best(epsilon) == max(surface.best(epsilon, (method,)) for method in METHODS)


def test_more_budget_reaches_more() -> None:
    for surface in (Surface(), drawn_surface(0)):
        assert surface.best(0.2) < surface.best(1.0) < surface.best(8.0)


def test_every_optimum_of_the_family_lies_in_the_space_of_the_benchmark() -> None:
    for seed in range(200):
        surface = drawn_surface(seed)
        for epsilon in (0.2, 16.0):
            for method in METHODS:
                config = config_at(surface, method, epsilon)
                assert 1e-3 <= config.clip_norm <= 10.0
                assert 1e-4 <= config.optimizer.learning_rate <= 1.0
                assert config.subspace.rank is None or 4 <= config.subspace.rank <= 256


def test_a_seed_is_a_surface() -> None:
    assert drawn_surface(3) == drawn_surface(3) != drawn_surface(4)
