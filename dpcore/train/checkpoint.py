"""The folder of one trial: who it is, where it stands, what it reported.

    trial.lock              held while the trial runs
    trial.json              identity: replay document, trial id, attempt, key id, digest of the starting weights
    checkpoint-000100/      state.safetensors and meta.json after 100 steps; the newest one stays
    digests.jsonl           one line per report, with the digest of its weights
    model/ , result.json    at the end

A checkpoint appears whole or not at all. Steps are replayed from the newest one, and every report that was made before
must be reached with the same weights: two runs with one noise and different sums would reveal their difference.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dpcore.data.folders import new_folder
from dpcore.errors import Corrupt, Refused
from dpcore.train.durable import append_line, read_json, read_lines, write_json
from dpcore.train.reports import Report

IDENTITY_FILE = "trial.json"
DIGESTS_FILE = "digests.jsonl"
RESULT_FILE = "result.json"
STATE_FILE = "state.safetensors"
FIXED_PARTS = ("config", "data", "mechanism", "trial_id", "start")
"""What even a new attempt cannot change: it would be another trial."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps."""

    step: int
    tensors: Mapping[str, Tensor]


class TrialFolder:
    """An open, locked trial folder; made by `open_trial_folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._recorded = {line["step"]: Report.of_document(line) for line in read_lines(folder / DIGESTS_FILE)}

    def settle_identity(self, identity: Mapping[str, Any]) -> None:
        """Writes the identity of a new folder, or compares it with the one there.

        With the same `attempt` everything must be equal. A higher attempt may change what only affects rounding and the
        key, drops the reports beyond the newest checkpoint, and continues from it under fresh randomness.

        Raises:
            Refused: names each part that differs, with both values.
        """
        path = self.folder / IDENTITY_FILE
        known: dict[str, Any] = read_json(path) if path.exists() else dict(identity)
        newer = identity["attempt"] > known["attempt"]
        compared = FIXED_PARTS if newer else tuple(identity)
        differences = [f"{part}: {known.get(part)} there, {identity[part]} now" for part in compared if known.get(part) != identity[part]]
        if differences or identity["attempt"] < known["attempt"]:
            raise Refused(
                f"{self.folder} cannot be replayed as it is; {'; '.join(differences) or 'it is at attempt ' + str(known['attempt'])}. "
                "Restore these, or start a new attempt, which draws fresh noise and is charged again"
            )
        if newer and self.result() is not None:
            raise Refused(f"{self.folder} holds a finished trial: another attempt at it would be another release; use a new trial id")
        if newer:
            self._forget_reports_after(self.checkpoint_step())
        write_json(path, dict(identity))

    def checkpoint_step(self) -> int:
        """The steps behind the newest checkpoint, 0 without one."""
        return max((int(path.name.removeprefix("checkpoint-")) for path in self._checkpoints()), default=0)

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, None without one.

        Raises:
            Corrupt: its bytes are not those that were written.
        """
        step = self.checkpoint_step()
        if step == 0:
            return None
        folder = self.folder / _name(step)
        meta = read_json(folder / "meta.json")
        if hashlib.sha256((folder / STATE_FILE).read_bytes()).hexdigest() != meta["sha256"]:
            raise Corrupt(f"{folder / STATE_FILE} differs from its meta.json; remove {folder} to replay from the start")
        return Checkpoint(step, load_file(folder / STATE_FILE))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then removes the older ones."""
        target, older = self.folder / _name(checkpoint.step), self._checkpoints()
        with new_folder(target, private=True) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}, temporary / STATE_FILE)
            digest = hashlib.sha256((temporary / STATE_FILE).read_bytes()).hexdigest()
            write_json(temporary / "meta.json", {"step": checkpoint.step, "sha256": digest})
        for path in older:
            shutil.rmtree(path)

    def reports_until(self, step: int) -> list[Report]:
        """The recorded reports of at most `step` steps, which a resumed trial repeats instead of computing."""
        return [self._recorded[at] for at in sorted(self._recorded) if at <= step]

    def record(self, report: Report) -> None:
        """Writes a report down, or holds it against the one of the same step.

        Raises:
            Refused: the replay reached other weights. Nothing is written then.
        """
        known = self._recorded.get(report.step)
        if known is None:
            append_line(self.folder / DIGESTS_FILE, report.document())
            self._recorded[report.step] = report
        elif known.weights_digest != report.weights_digest:
            raise Refused(
                f"{self.folder}: the replay reached weights {report.weights_digest} at step {report.step}, recorded are "
                f"{known.weights_digest}. This machine does not repeat the run bit for bit: start a new attempt, which is charged again"
            )

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result, after which the folder is a finished trial, and removes the checkpoints."""
        write_json(self.folder / RESULT_FILE, dict(result))
        for path in self._checkpoints():
            shutil.rmtree(path)

    def result(self) -> dict[str, Any] | None:
        """The result of a finished trial."""
        path = self.folder / RESULT_FILE
        return read_json(path) if path.exists() else None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*"))

    def _forget_reports_after(self, step: int) -> None:
        self._recorded = {at: report for at, report in self._recorded.items() if at <= step}
        (self.folder / DIGESTS_FILE).unlink(missing_ok=True)
        for report in self._recorded.values():
            append_line(self.folder / DIGESTS_FILE, report.document())


@contextmanager
def open_trial_folder(folder: Path) -> Iterator[TrialFolder]:
    """The folder of a trial, made if need be and locked against a second process.

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
    return f"checkpoint-{step:06d}"
