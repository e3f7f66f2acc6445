"""Synthetic people for the examples: 200 private, 100 public, 40 for validation. Drawn in a second or two."""

from pathlib import Path
from typing import Any

from dpcore.data.synthetic import synth

PEOPLE = {"private": ("private", "PRIVATE", 200), "public": ("public", "PUBLIC", 100), "validation": ("private", "PUBLIC", 40)}


def tiny_data(folder: str) -> dict[str, Any]:
    """Draws the datasets below `folder` and returns the settings that let a preset use them."""
    for seed, (name, (domain, role, count)) in enumerate(PEOPLE.items()):
        synth(Path(folder) / "tiny" / name, domain, count=count, seed=seed, role=role)
    return {
        "data.private": "tiny/private",
        "data.public": "tiny/public",
        "data.validation": "tiny/validation",
        "data.nominal_examples": PEOPLE["private"][2],
        "stages.private.expected_batch_size": 40,
        "stages.private.steps": 8,
        "stages.public.steps": 20,
        "stages.public.batch_size": 16,
        "references.ceiling": False,
        "references.winner_seeds": 0,
    }
