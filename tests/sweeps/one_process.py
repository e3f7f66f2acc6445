"""Ray's part of a sweep, without Ray: one worker in this process, one trial after the other."""

from types import SimpleNamespace
from typing import Any

from sweeps.engine.searcher import ScheduleCallback, ScheduleSearcher
from sweeps.engine.trainable import TrialTrainable
from sweeps.records.spec import SweepSpec


class OneProcess:
    """Stands for `run_tune`; keeps what it was given and what came back: all that Ray would have seen."""

    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def __call__(self, spec: SweepSpec, *, key: object, searcher: ScheduleSearcher, callback: ScheduleCallback) -> None:
        worker = object.__new__(TrialTrainable)
        config = searcher.suggest("x")
        self.envelope = searcher.envelope
        worker.setup(config, key=key, envelope=searcher.envelope, runtime=spec.runtime.model_dump(mode="json"))
        while isinstance(config, dict):
            self.configs.append(config)
            trial = SimpleNamespace(config=config, last_result=None)
            callback.on_trial_start(0, [], trial)
            while trial.last_result is None or not trial.last_result["done"]:
                trial.last_result = worker.step()
                self.results.append(trial.last_result)
                callback.on_trial_result(0, [], trial, trial.last_result)
            callback.on_trial_complete(0, [], trial)
            config = searcher.suggest("x")
            if isinstance(config, dict):
                worker.reset_config(config)
        worker.cleanup()
