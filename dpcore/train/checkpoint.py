"""The folder of one trial: its identity, its state and its reports.

    trial.lock              held while the trial runs
    trial.json              identity: replay document, trial id, attempt, key id, digest of the starting weights
    checkpoint-000100/      state.safetensors and meta.json after 100 steps; the newest one stays
    digests.jsonl           one line per report, with the digest of its weights; a line where a new attempt begins
    model/ , result.json    at the end

A checkpoint appears completely or not at all. Steps are replayed from the newest one, and must reach the same weights at every earlier
report. Otherwise two runs with one noise and different sums would reveal their difference. Reports stay on record, even if a new
attempt takes the same steps again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dpcore.data.folders import new_folder
from dpcore.durable import TEMPORARY_SUFFIX, append_line, cut_half_line, read_json, write_json
from dpcore.errors import Corrupt, NotReplayable, Refused
from dpcore.train.attempts import CHECKPOINT_PREFIX, DIGESTS_FILE, IDENTITY_FILE, RESULT_FILE, newest_checkpoint_step, recorded_reports
from dpcore.train.reports import Report

STATE_FILE = "state.safetensors"
META_FILE = "meta.json"
FIXED_PARTS = ("config", "data", "mechanism", "trial_id", "people")
"""Parts of the identity that even a new attempt cannot change, because it would be another trial. The digest of the start is not one of
them. If these parts are equal, it can differ only by rounding, for example if another machine trained the public stage."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps."""

    step: int
    tensors: Mapping[str, Tensor]


class TrialFolder:
    """An open, locked trial folder. `open_trial_folder` creates it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _remove_unfinished(folder)
        cut_half_line(folder / DIGESTS_FILE)
        self._attempt, self._recorded = recorded_reports(folder)

    def settle_identity(self, identity: Mapping[str, Any]) -> None:
        """Writes the identity of a new folder, or compares it with the stored identity.

        With the same `attempt` everything must be equal, unless the trial is finished: repeating its reports computes nothing. A higher
        attempt may change the key and whatever affects only rounding. It continues from the newest checkpoint.

        Raises:
            Refused: it is another trial, or an earlier attempt. The message names each part that differs, with both values.
            NotReplayable: it is this trial, but the machine, libraries, runtime or key cannot repeat it bit for bit; or the
                checkpoint from which the attempt was charged is missing.
        """
        path = self.folder / IDENTITY_FILE
        known: dict[str, Any] = read_json(path) if path.exists() else dict(identity)
        if identity["attempt"] < known["attempt"]:
            raise Refused(f"{self.folder} is at attempt {known['attempt']}; attempt {identity['attempt']} has ended")
        newer = identity["attempt"] > known["attempt"]
        if newer and self.result() is not None:
            raise Refused(f"{self.folder} holds a finished trial: another attempt would be another release; use a new trial id")
        self._compare(known, identity, FIXED_PARTS if newer or self.result() is not None else dict.fromkeys((*FIXED_PARTS, *identity)))
        if self.result() is not None:
            return
        if newest_checkpoint_step(self.folder) < identity["from_step"]:
            raise NotReplayable(
                f"{self.folder} has no checkpoint of step {identity['from_step']}, from which attempt {identity['attempt']} continues and "
                "is charged. Restore it; continuing without it is a new attempt, charged from the start"
            )
        write_json(path, dict(identity))
        if self._attempt < identity["attempt"]:
            begin = {"attempt": identity["attempt"], "from_step": identity["from_step"]}
            append_line(self.folder / DIGESTS_FILE, begin)
            self._enter_attempt(begin["attempt"], begin["from_step"])

    def _compare(self, known: Mapping[str, Any], identity: Mapping[str, Any], parts: Iterable[str]) -> None:
        differing = [part for part in parts if known.get(part) != identity.get(part)]
        if not differing:
            return
        told = "; ".join(f"{part}: {known.get(part)} there, {identity.get(part)} now" for part in differing)
        if set(differing).intersection(FIXED_PARTS):
            raise Refused(f"{self.folder} holds another trial ({told}); restore these, or use another folder")
        raise NotReplayable(
            f"{self.folder} cannot be replayed here ({told}). Restore these; continuing without them is a new attempt, whose fresh "
            "noise is charged again"
        )

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, or None.

        Raises:
            Corrupt: its bytes differ from those that were written.
        """
        step = newest_checkpoint_step(self.folder)
        if step == 0:
            return None
        folder = self.folder / _name(step)
        state = folder / STATE_FILE
        try:
            meta = read_json(folder / META_FILE)
        except Corrupt as error:
            raise Corrupt(f"{error}, or remove {folder}: the trial is replayed from the start") from None
        if not state.is_file() or hashlib.sha256(state.read_bytes()).hexdigest() != meta["sha256"]:
            raise Corrupt(f"{state} differs from its {META_FILE}; remove {folder}, and the trial is replayed from the start")
        # Copied into newly allocated memory, as in an uninterrupted run: MKL rounds a single-row product depending on memory alignment.
        return Checkpoint(step, {name: tensor.clone() for name, tensor in load_file(state).items()})

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then removes the older ones."""
        target, older = self.folder / _name(checkpoint.step), self._checkpoints()
        with new_folder(target, private=True) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}, temporary / STATE_FILE)
            digest = hashlib.sha256((temporary / STATE_FILE).read_bytes()).hexdigest()
            write_json(temporary / META_FILE, {"step": checkpoint.step, "sha256": digest})
        for path in older:
            shutil.rmtree(path)

    def reports_until(self, step: int) -> list[Report]:
        """The recorded reports up to `step`. A resumed trial repeats them instead of computing them."""
        return [self._recorded[at] for at in sorted(self._recorded) if at <= step]

    def record(self, report: Report) -> None:
        """Stores a report, or compares it with the stored report of the same step.

        Raises:
            NotReplayable: the replay reached other weights. Nothing is written then.
        """
        known = self._recorded.get(report.step)
        if known is None:
            append_line(self.folder / DIGESTS_FILE, report.document())
            self._recorded[report.step] = report
        elif known.weights_digest != report.weights_digest:
            raise NotReplayable(
                f"{self.folder}: the replay reached weights {report.weights_digest} at step {report.step}, recorded are "
                f"{known.weights_digest}. This machine does not repeat the run bit for bit; continuing is a new attempt, whose fresh "
                "noise is charged again"
            )

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result and removes the checkpoints. The trial is finished then."""
        write_json(self.folder / RESULT_FILE, dict(result))
        for path in self._checkpoints():
            shutil.rmtree(path)

    def result(self) -> dict[str, Any] | None:
        """The result of a finished trial."""
        path = self.folder / RESULT_FILE
        return read_json(path) if path.exists() else None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob(f"{CHECKPOINT_PREFIX}*"))

    def _enter_attempt(self, attempt: int, from_step: int) -> None:
        """Notes where a new attempt begins. It does not have to repeat later reports of earlier attempts."""
        self._attempt = attempt
        self._recorded = {at: report for at, report in self._recorded.items() if at <= from_step}


@contextmanager
def open_trial_folder(folder: Path) -> Iterator[TrialFolder]:
    """The folder of a trial, created if necessary and locked against a second process.

    Raises:
        Refused: another process runs this trial.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trial.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{folder} is in use by another process: wait for it, or stop it first") from None
        yield TrialFolder(folder)


def _name(step: int) -> str:
    return f"{CHECKPOINT_PREFIX}{step:06d}"


def _remove_unfinished(folder: Path) -> None:
    """Removes half-written files that a kill has left."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
