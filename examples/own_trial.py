"""A trial function of one's own: it stands in a training's place, and search, price, ledger and resume stay the same.

    python examples/own_trial.py [FOLDER]

It yields one report after the other. Each has the private step, whether it is the last, metrics, a digest of what was released, and
what was spent: the driver holds that against the plan that it reserved.
Here a formula replaces the training, so that the sweep takes seconds and reads no data.
"""

import math
import sys
import tempfile
from collections.abc import Iterator

from tiny_data import tiny_data

import dpsweep
from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.privacy.accounting import epsilon_spent
from dpcore.train.handout import Handout
from dpcore.train.reports import Report


def run_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """Yields three reports of a made-up training that likes a clip norm of 0.3.

    Args:
        config: the settings of the trial (`dpcore.config.TrialConfig`).
        runtime: threads, device, how often to report.
        handout: the reserved plan (noise multiplier, q, steps), key, folder, trial id. A real training adds the noise of the plan,
            drawn from the key.
    """
    steps = config.stages.private.steps
    distance = 0.0 if config.clip_norm is None else abs(math.log10(config.clip_norm / 0.3))
    for share in (1 / 3, 2 / 3, 1.0):
        step = round(share * steps)
        score = share * (0.6 - 0.1 * distance)
        plan = handout.plan
        yield Report(
            step=step,
            done=share == 1.0,
            metrics={"val/pckh_50": score, "val/pckh_10": score / 5},
            weights_digest=f"{handout.trial_id}-{step}",
            spent=None if plan is None else plan.spent(step, epsilon_spent(plan, step, handout.places.cache_dir)),
        )


def main(storage: str) -> None:
    """Sweeps four trials and prints the winner."""
    results = dpsweep.run(
        "dpsgd",
        name="own",
        storage=storage,
        data_dir=f"{storage}/data",
        epsilons=[0.8],
        trials=4,
        trial_function=run_trial,
        set=tiny_data(f"{storage}/data"),
    )
    print(results)
    print(f"clip norm of the winner: {results.best(0.8).config.clip_norm:.3g}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
