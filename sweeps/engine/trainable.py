"""A trial on a Ray worker: one `step` is one report of the trial function.

A class with `reset_config`, so that actors are reused: 0.06 s a trial against 2.6 s for a function in a fresh worker.
Ray's checkpoints are not used; the trial function keeps its own under its folder and replays from them. Where the storage is a
bucket, that folder is a scratch copy of this node (`sweeps.storage.bucket_trial`).
"""

from __future__ import annotations

import fcntl
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.disk import naming_full_disk
from dpcore.errors import BadInput, DiskFull, DpsweepError, NotReplayable, OutOfMemory, Unavailable
from dpcore.train.attempts import Attempt
from dpcore.train.handout import Handout
from sweeps.engine.gpu_memory import CudaMemory, make_room
from sweeps.pricing.sealed import make_sealed_folder, seal
from sweeps.storage.bucket_trial import BucketTrial, open_bucket_trial
from sweeps.tracking.allow_list import allowed_error

if TYPE_CHECKING:
    from dpcore.privacy.score_release import ScoreRelease

LOCK_FILE = "trial.lock"
LOCK_WAIT_S = 90.0
"""How long a worker of a dead driver may take to notice that it is alone."""

TrialFunction = Callable[[TrialConfig, RuntimeFlags, Handout], Iterator[Any]]


class TrialTrainable(tune.Trainable):
    """Runs what stands in `config["trial"]`; the key comes as a parameter and stands in no config.

    A DpsweepError is an answer, not a crash: the last result says `error`, and how the trial can go on where it can:
    `not_replayable` (as a new attempt alone), `out_of_memory_at` (one with a smaller physical batch), `disk_full` (once there
    is room). Anything else crashes the worker, and the driver decides whether to try again. `Unavailable` (a device or file
    that may come back) is a crash in that sense.
    """

    _reports: Iterator[Any] | None = None
    _copy: BucketTrial | None = None
    _scratch: ExitStack

    def setup(self, config: dict[str, Any], key: Any = None, runtime: dict[str, Any] | None = None, gpus: float = 0.0) -> None:
        """Sets the threads before torch is imported, then begins the trial. `gpus`: what each trial asks of Ray."""
        self._key = key
        self._scratch = ExitStack()
        self._gpus = gpus
        self._runtime = parse_config(RuntimeFlags, runtime or {})
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(self._runtime.threads)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in the same process."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next report as a result."""
        try:
            with naming_full_disk(Path(self._trial["folder"])):
                if self._reports is None:
                    self._reports = self._start()
                if self._copy is not None and self._copy.keep():
                    return {"done": True}
                report = next(self._reports, None)
            if report is not None:
                self._hold_against_earlier(report)
        except Unavailable:
            raise
        except DpsweepError as error:
            text = allowed_error(f"{type(error).__name__}: {error}", protected=self._is_sealed)
            return {"done": True, "error": text, **_how_to_go_on(error)}
        if report is None:
            return {"done": True, "error": "the trial ended without a last report"}
        if self._is_sealed:
            return self._sealed(report)
        metrics = {name: float(value) for name, value in report.metrics.items() if math.isfinite(value)}
        if self._copy is not None:
            self._copy.delivers(int(report.step), done=bool(report.done))
        return {
            "done": bool(report.done) and self._copy is None,
            "report": {"step": int(report.step), "metrics": metrics, "weights_digest": str(report.weights_digest)},
        }

    @property
    def _is_sealed(self) -> bool:
        return bool(self._trial.get("sealed"))

    def _sealed(self, report: Any) -> dict[str, Any]:
        """A report of which nothing leaves but whether it is the last: the rest follows from private data without noise."""
        if report.done:
            self._end()
            seal(Path(self._trial["folder"]), report.metrics)
        return {"done": bool(report.done)}

    def _hold_against_earlier(self, report: Any) -> None:
        """Keeps a report in the worker that is not the one that was made before: its noise is the same, its sums are not.

        The trial holds itself against its folder; this holds where the folder is lost or lies on another machine.

        Raises:
            NotReplayable: the weights differ.
        """
        expected = self._trial.get("expected", {}).get(str(int(report.step)))
        if expected is not None and expected != str(report.weights_digest):
            raise NotReplayable(
                f"trial {self._trial['trial_id']}: a retry reached other weights at step {report.step} than were reported before; "
                "it was stopped there, because two releases under one noise would reveal their difference"
            )

    def cleanup(self) -> None:
        """Closes the trial, so that its folder's lock is free."""
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial: dict[str, Any] = config["trial"]
        self._reports = None

    def _start(self) -> Iterator[Any]:
        trial = self._trial
        function = load_function(trial["function"])
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self._runtime.threads)
        folder = self._folder()
        if self._runtime.device == "cuda":
            make_room(CudaMemory(), self._gpus)
        handout = Handout(
            places=parse_config(Places, trial["places"]),
            trial_id=trial["trial_id"],
            key=self._key,
            folder=folder,
            attempt=parse_config(Attempt, trial["attempt"]),
            sealed=self._is_sealed,
            validation=_private_validation(trial),
        )
        return function(parse_config(TrialConfig, trial["config"]), self._runtime, handout)

    def _folder(self) -> Path:
        """Where the trial keeps its checkpoints: its folder of the storage, free now, or a scratch copy of what a bucket has."""
        trial, folder = self._trial, Path(self._trial["folder"])
        if trial["bucket"] is not None:
            scratch = Path(trial["places"]["cache_dir"])
            copy = open_bucket_trial(trial["bucket"], scratch=scratch, attempt=int(trial["attempt"]["number"]))
            self._copy = self._scratch.enter_context(copy)
            return self._copy.folder
        if self._is_sealed:
            make_sealed_folder(folder)
        wait_for_lock(folder, within_s=LOCK_WAIT_S)
        return folder

    def _end(self) -> None:
        close = getattr(self._reports, "close", None)
        self._reports = self._copy = None
        if close is not None:
            close()
        self._scratch.close()


def _how_to_go_on(error: DpsweepError) -> dict[str, Any]:
    if isinstance(error, OutOfMemory):
        return {"out_of_memory_at": error.physical_batch_size}
    if isinstance(error, DiskFull):
        return {"disk_full": True}
    return {"not_replayable": True} if isinstance(error, NotReplayable) else {}


def _private_validation(trial: dict[str, Any]) -> ScoreRelease | None:
    """How the score leaves; None where validation is public."""
    if trial.get("validation") is None:
        return None
    from dpcore.privacy.score_release import ScoreRelease  # the accountant behind it takes a second to import

    return parse_config(ScoreRelease, trial["validation"])


def load_function(name: str) -> TrialFunction:
    """The function behind `module:function`.

    Raises:
        BadInput: there is none of that name.
    """
    module, _, function = name.partition(":")
    try:
        found: TrialFunction = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"trial function {name} cannot be imported ({error}); expected module:function") from error
    return found


def wait_for_lock(folder: Path, *, within_s: float) -> None:
    """Waits until no other process holds a trial's folder: workers of a killed driver need a moment to notice.

    Raises:
        Unavailable: it is still held after `within_s` seconds.
    """
    path, end = folder / LOCK_FILE, time.monotonic() + within_s
    while path.is_file():
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Unavailable(f"{path} is held by another process since {within_s:g} s; end that one first") from None
        time.sleep(0.2)
