"""A whole sweep with the real Ray, MLflow and Optuna in a process of its own, for the walk over what it wrote.

python walk_sweep.py ROOT composed|selection [ADDRESS]
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from search_spaces.loader import build_space
from sweeps.api.sweep import summarize
from sweeps.engine.driver import run_sweep
from sweeps.engine.preflight import default_surroundings
from sweeps.records.cohort_ledger import bind_ledger
from sweeps.records.spec import SweepSpec

COMPOSED: dict[str, Any] = {
    "sweep": {"epsilons": [4.3], "delta": 1e-3, "trials_per_epsilon": 2, "sampler": "random", "accounting": "composed"},
    "references": {"floor": True, "ceiling": "non_private", "control": False, "winner_seeds": 0, "disclosure": False},
    "splits": {"pixels_8": {"transform": "pixelate", "cell_px": 8}},
    "trial": {
        "method": "feature",
        "split": "pixels_8",
        "data": {"private": "clinic", "public": "public", "validation": "validation", "nominal_examples": 48},
        "public_batch_size": 8,
        "model": {"backbone": "small", "freeze": "backbone"},
        "stages": {
            "public": {"steps": 4, "batch_size": 8},
            "public_view": {"steps": 4, "batch_size": 8},
            "private": {"steps": 3, "expected_batch_size": 12},
        },
    },
    "search": {"clip_norm": {"float": [0.1, 1.0]}},
}
SELECTION: dict[str, Any] = {
    "sweep": {
        "epsilons": [1.7],
        "delta": 1e-5,
        "sampler": "random",
        "accounting": "private_selection",
        "selection": {"mean_trials": 15, "shape": "inf"},  # fewer than two trials, so no loser: once in 200,000 sweeps
    },
    "references": {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0, "disclosure": False},
    "trial": {
        "method": "dpsgd",
        "data": {"private": "stand_in", "public": "public", "validation": "validation", "nominal_examples": 48},
        "model": {"backbone": "small", "freeze": "backbone"},
        "stages": {"public": {"steps": 4, "batch_size": 8}, "private": {"steps": 3, "expected_batch_size": 12}},
    },
    "search": {"clip_norm": {"float": [0.1, 1.0]}, "optimizer.learning_rate": {"float": [0.001, 0.1]}},
}


def write_people(data: Path) -> None:
    """A protected clinic, a stand-in, and public people."""
    header = DatasetHeader(name="clinic", role="PRIVATE", protected=True, height_px=64, width_px=64, origin="hrnet clinic.json")
    write_shards(data / "clinic", (draw_record("private", seed=4, index=i) for i in range(48)), header=header)
    bind_ledger(open_shards(data / "clinic"), ledger=None, epsilon_total=None, delta=None)
    synth(data / "stand_in", "private", count=48, seed=5, role="PRIVATE")
    synth(data / "public", "public", count=24, seed=1, role="PUBLIC")
    synth(data / "validation", "private", count=12, seed=3, role="PUBLIC")


def spec_of(root: Path, kind: str, address: str | None) -> SweepSpec:
    """The sweep below a root."""
    space = build_space(COMPOSED if kind == "composed" else SELECTION, name=kind)
    function = {"composed": "clinic_trial", "selection": "selected_trial"}[kind]
    return SweepSpec(
        name="s",
        space=space,
        places=Places(data_dir=root / "data", cache_dir=root / "cache"),
        storage=root / "store",
        seed=11,
        address=address,
        max_concurrent=1,
        trial_function=f"walk_trials:{function}",
    )


def main(root: Path, kind: str, address: str | None = None) -> None:
    write_people(root / "data")
    spec = spec_of(root, kind, address)
    results = run_sweep(spec, replace(default_surroundings(spec.places.cache_dir)), summarize=partial(summarize, spec))
    for record in results.records:
        print(record.trial_id, record.state, record.error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
