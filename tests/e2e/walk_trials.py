"""Trials for the walk over everything that a sweep writes. What they know that nobody may read goes to a file outside the walk."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.train import trainer
from dpcore.train.handout import Handout
from dpcore.train.reports import Report

PICTURE = "ward7-IMG_48213-maria.jpg"
"""A person's picture, as an exception may quote it."""

FAILING = "-001"


def note(handout: Handout, **known: object) -> None:
    """Adds a line to the truth: what this trial must not tell."""
    with Path(os.environ["WALK_TRUTH"]).open("a") as file:
        file.write(json.dumps({"trial_id": handout.trial_id, **known}) + "\n")


def clinic_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """A real trial; a sealed one has scores that no other trial can have. The second of the search crashes instead of its report, and
    quotes a picture."""
    for report in trainer.run_trial(config, runtime, handout):
        if handout.sealed:
            report = replace(report, metrics={name: value + 0.0031337 for name, value in report.metrics.items()})
        note(handout, sealed=dict(report.metrics) if handout.sealed else {})
        if handout.trial_id.startswith("e") and handout.trial_id.endswith(FAILING):
            raise ValueError(f"cannot read {PICTURE}: row 1337 of 4096")
        yield report


def selected_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """A candidate of milliseconds, with an awkward score for its awkward settings."""
    score = 0.41371 + 0.1 * (config.clip_norm or 0.0) / 7.3
    note(handout, settings=[config.clip_norm, config.optimizer.learning_rate], sealed={"val/pckh_50": score})
    handout.folder.mkdir(parents=True, exist_ok=True)
    time.sleep(0.05)
    steps = config.stages.private.steps
    spent = None if handout.plan is None else handout.plan.spent(steps, handout.plan.epsilon_planned)
    metrics = {"val/pckh_50": score, "val/pckh_10": score / 3.1}
    yield Report(step=steps, done=True, metrics=metrics, weights_digest=f"{handout.trial_id}-1", spent=spent)
