"""A simulated trial without training: closed-form learning curves with a known optimum, in milliseconds.

It replaces `dpcore.train.trainer:run_trial` (`SweepSpec.trial_function`). So search, stoppers, pricing, resume and thousands of trials run
through the driver of real sweeps. It reads no data, and its scores say nothing about pose estimation. `sweeps.engine.surfaces` has the
surface of final scores.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator

from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.durable import append_line, cut_half_line, read_lines
from dpcore.errors import BadInput
from dpcore.privacy.plan import Spent
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from sweeps.engine.surfaces import PUBLIC_ONLY, Surface

REPORTS_FILE = "simulated.jsonl"
SURFACE = Surface()
SLEEP_S = 10.0
FAILING_SHARE = 0.05


def run_trial(
    config: TrialConfig, runtime: RuntimeFlags, handout: Handout, *, sleep_s: float = 0.0, fails: bool = False
) -> Iterator[Report]:
    """A trial that reports like a real one. Each report is on disk before it is given, and a repetition gives the same reports.

    Args:
        config, runtime, handout: as for a real trial; key and places are not used.
        sleep_s: how long the trial sleeps in total.
        fails: whether it fails in the middle.

    Raises:
        RuntimeError: `fails`. BadInput: there is no folder.
    """
    folder, trial_id, attempt = handout.folder, handout.trial_id, handout.attempt
    if folder is None:
        raise BadInput("a simulated trial stores its reports in a folder: give it one")
    folder.mkdir(parents=True, exist_ok=True)
    cut_half_line(folder / REPORTS_FILE)
    recorded = {(line["attempt"], line["step"]): line for line in read_lines(folder / REPORTS_FILE)}
    steps = config.stages.private.steps if config.traits.private_sum != "none" else 0
    points = [*range(runtime.report_every_steps, steps, runtime.report_every_steps), steps]
    final = SURFACE.score(config) + SURFACE.noise_stddev * _normal(f"{trial_id}|{config.fingerprint()}|{attempt.number}")
    for number, step in enumerate(points):
        line = recorded.get((attempt.number, step))
        if line is None:
            time.sleep(sleep_s / len(points))
            if fails and number >= len(points) // 2:
                raise RuntimeError(f"simulated failure of {trial_id}")
            metrics = _metrics(final, share=step / steps if steps else 1.0)
            line = {"attempt": attempt.number, "step": step, "metrics": metrics}
            append_line(folder / REPORTS_FILE, line)
        yield Report(
            step=step,
            done=step == points[-1],
            metrics=line["metrics"],
            weights_digest=f"{trial_id}.{attempt.number}-{step}",
            spent=_spent(config, handout, step),
        )


def sleeping_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """`run_trial` that takes ten seconds, to keep the slots of a simulated cluster busy."""
    return run_trial(config, runtime, handout, sleep_s=SLEEP_S)


def failing_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """`run_trial` in which every twentieth trial fails in the middle, always the same ones."""
    return run_trial(config, runtime, handout, fails=_uniform(handout.trial_id, "luck") < FAILING_SHARE)


def _spent(config: TrialConfig, handout: Handout, step: int) -> Spent | None:
    """What a trial that did its plan would say."""
    if not config.spends_privacy or handout.plan is None:
        return None
    from dpcore.privacy.accounting import epsilon_spent

    return handout.plan.spent(step, epsilon_spent(handout.plan, step, handout.places.cache_dir))


def _metrics(final: float, *, share: float) -> dict[str, float]:
    """The learning curve at `share` of the horizon. It rises from slightly below the floor to `final`, fast at first."""
    start = min(PUBLIC_ONLY - 0.05, final)
    score = start + (final - start) * (1.0 - math.exp(-4.0 * share)) / (1.0 - math.exp(-4.0))
    return {"val/pckh_50": score, "val/pckh_10": 0.2 * score}


def _uniform(name: str, what: str) -> float:
    digest = hashlib.sha256(f"{name}|{what}".encode()).digest()
    return (int.from_bytes(digest[:8], "little") + 0.5) / 2**64


def _normal(name: str) -> float:
    """A normal number (Box and Muller) from a name, so that a repetition gets the same number."""
    return math.sqrt(-2.0 * math.log(_uniform(name, "radius"))) * math.cos(2.0 * math.pi * _uniform(name, "angle"))
