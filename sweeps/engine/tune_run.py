"""One run of Ray Tune over what the searcher hands out."""

from __future__ import annotations

from typing import Any

from sweeps.internals.ray_internals import staging_in
from sweeps.ray_runtime.ray_session import silence
from sweeps.records.spec import SweepSpec
from sweeps.storage.ray_folder import tune_folder


def run_tune(spec: SweepSpec, *, key: Any, searcher: Any, callback: Any) -> None:
    """One Tune run over everything that the searcher hands out. Needs an open `ray_session`.

    Ray's own bookkeeping goes to a folder that is removed afterwards: resuming is ours.
    """
    from ray import tune

    from sweeps.engine.trainable import TrialTrainable

    silence()
    runtime = spec.trial_runtime.model_dump(mode="json")
    trainable = tune.with_parameters(TrialTrainable, key=key, envelope=searcher.envelope, runtime=runtime, gpus=spec.gpus_per_trial)
    bundle = {"CPU": spec.cpus_per_trial, **({"GPU": spec.gpus_per_trial} if spec.gpus_per_trial else {})}
    folder = tune_folder(spec.state_dir)
    # Not tune.Tuner: it pickles and copies searcher and callbacks at birth, and ours hold the open study and ledger.
    with staging_in(folder / "staging"):
        tune.run(
            trainable,
            name="tune",
            storage_path=str(folder),
            resources_per_trial=tune.PlacementGroupFactory([bundle]),
            search_alg=searcher,
            scheduler=searcher.stopper,
            callbacks=[callback],
            num_samples=-1,
            max_concurrent_trials=searcher.max_concurrent,
            max_failures=0,  # retries are the schedule's: one path for a retry and a resume
            raise_on_failed_trial=False,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,  # Ray's default is made of the settings
            verbose=0,
        )


def _trial_name(trial: Any) -> str:
    """Ray's own id of a trial, drawn at random."""
    return str(trial.trial_id)
