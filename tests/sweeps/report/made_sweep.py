"""A sweep of made-up records over two ε and four methods, in the space of the quick preset, and its report."""

import random
from dataclasses import replace
from pathlib import Path

from dpcore.config import Places, TrialConfig
from search_spaces.loader import load_space
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.report import SweepReport, build_report, with_details

EPSILONS = (0.8, 8.0)
JOINTS = ("head", "r_wrist", "l_wrist")


def spec_in(folder: Path, places: Places) -> SweepSpec:
    """Its trials are no real ones: nobody asks for their models, datasets or claims."""
    return SweepSpec(
        name="made",
        space=load_space("quick", assignments=["sweep.validation_search_frac=null"]),
        places=places,
        storage=folder,
        trial_function="made_sweep:none",
    )


def results_of(spec: SweepSpec, *, trials: int = 12, protected: bool = False, accounting: str = "composed") -> SweepResults:
    """Per ε `trials` of the search (the last one failed) and two fresh seeds; floor and ceiling once."""
    generator = random.Random(7)
    records: list[TrialRecord] = []
    for epsilon in EPSILONS:
        for number in range(trials):
            config = spec.space.trial_config(epsilon, spec.space.draw(epsilon, generator))
            records.append(_record(f"e{epsilon:g}-{number:03d}", "search", config, 0.5 + 0.05 * generator.random(), epsilon, number))
        records[-1] = replace(records[-1], state="failed", pckh_50=None, error="ValueError: cannot read ward7-IMG_48213-maria.jpg")
        best = max(records[-trials:], key=lambda one: one.pckh_50 or 0.0)
        for number in range(2):
            score = (best.pckh_50 or 0.0) - 0.01 + 0.004 * number
            records.append(_record(f"seed-e{epsilon:g}-{number + 1}", "seed", best.config, score, epsilon, number))
    base = {"data": spec.space.trial["data"], "stages": {"private": {"steps": 60, "expected_batch_size": 256}}}
    records.append(_record("public-start", "floor", TrialConfig(**base, method="public_only"), 0.51))
    records.append(_record("ceiling", "ceiling", TrialConfig(**base, method="nonprivate"), 0.61))
    price = None if accounting == "unaccounted" else 4.372
    return SweepResults(
        name="made",
        records=tuple(records),
        accounting=accounting,
        delta=1e-5,
        sweep_epsilon=price,
        composed_epsilon=4.372,
        protected=protected,
    )


def report_of(results: SweepResults, spec: SweepSpec) -> SweepReport:
    return with_details(build_report(results, spec=spec), results, spec=spec)


def _record(trial_id: str, role: str, config: TrialConfig, score: float, epsilon: float | None = None, number: int = 0) -> TrialRecord:
    joints = {f"val/pckh_50/{name}": score - 0.02 * place for place, name in enumerate(JOINTS)}
    points = [CurvePoint(step, {"val/pckh_50": score * (0.9 + 0.1 * step / 60)}) for step in (20, 40)]
    if epsilon is not None:
        points = [replace(one, metrics={**one.metrics, "privacy/epsilon_spent": epsilon * one.step / 60}) for one in points]
    return TrialRecord(
        trial_id=trial_id,
        role=role,
        number=number,
        config=config,
        epsilon=epsilon,
        state="done",
        pckh_50=score,
        epsilon_spent=None if epsilon is None else 0.999 * epsilon,
        noise_multiplier=None if epsilon is None else 3.1,
        sampling_prob=None if epsilon is None else 0.064,
        steps=60,
        curve=(*points, CurvePoint(60, {"val/pckh_50": score, "train/loss": 41.25, **joints})),
    )
