"""Faults of every kind into a small real sweep, one at a time: a kill, a lock, a full disk, a byte cut or flipped in any of its files.

`draw` makes an injection of a seed, `Target.suffer` carries it out, and says what came of it: a sound sweep, or one message, after
which the sweep is sound once the cause is gone. All sweeps go on from one that was killed in its middle, or begin anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e_support import Cli
from full_disk import fill
from process_tree import Process, descendants

from dpcore.privacy.composition import epsilon_of_charge
from sweeps.ledger.ledger import Ledger
from sweeps.records.results import read_results
from sweeps.records.spec import SweepSpec
from sweeps.report.status import sweep_status

NAME = "s"
TRIALS = 5
SPACE = f"""
sweep: {{epsilons: [2], delta: 1.0e-3, trials_per_epsilon: {TRIALS}, sampler: random, accounting: composed}}
references: {{floor: true, ceiling: false, control: false, winner_seeds: 0}}
trial:
  data: {{private: tiny/private, public: tiny/public, validation: tiny/validation, nominal_examples: 200}}
  model: {{backbone: small, freeze: early}}
  stages:
    public: {{steps: 10, batch_size: 16}}
    private: {{steps: 12, expected_batch_size: 40}}
search:
  method: {{choice: [dpsgd]}}
  clip_norm: {{float: [0.1, 1.0], log: true}}
"""
PLANNED = TRIALS + 1
HANG_S = 60.0
"""No command may take longer than the undisturbed one and so much more (times SLACK, for machines that do other things too)."""
SLACK = float(os.environ.get("INJECTIONS_SLACK", "4"))
FRESH_DISKS_KIB = (300, 1200)
ROOM_KIB = 2048
"""What a disk has beside the copied sweep, until it is filled."""


@dataclass(frozen=True)
class Injection:
    """What is done to a sweep, drawn from a seed.

    Attributes:
        kind: `kill`, `lock`, `disk`, `cut` or `flip`.
        fresh: into a new sweep; else into one that goes on.
        at: the moment as a share of the undisturbed command; the place in a file as a share of its size.
        pick: which file or process, a number that is reduced to what there is.
        seconds: how long a lock is held.
    """

    seed: int
    kind: str
    fresh: bool
    at: float
    pick: int
    seconds: float


def draw(seed: int) -> Injection:
    """The injection of a seed. Every kind comes in turn; damaged files as often as the others together. Six in a row have all kinds."""
    generator = random.Random(f"injection {seed}")
    kind = ("cut", "kill", "flip", "lock", "cut", "disk", "flip", "kill", "flip", "disk")[seed % 10]
    fresh = kind in ("kill", "disk") and generator.random() < 0.4
    return Injection(seed, kind, fresh, generator.random(), generator.randrange(2**32), generator.uniform(2.0, 30.0))


@dataclass
class Outcome:
    """What came of an injection.

    Attributes:
        what: the fault in words. code, seconds: of the command that met it. message: its last line, None where the sweep came out sound.
        said: all that the command said. faults: what should not have been; empty where all is well.
    """

    injection: Injection
    what: str = ""
    code: int = 0
    seconds: float = 0.0
    message: str | None = None
    said: str = ""
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """A line of the committed table."""
        ended = "sound" if self.message is None else self.message
        return f"| {self.injection.seed} | {self.what} | {self.code} | {self.seconds:.0f} | {ended} | {'; '.join(self.faults) or 'none'} |"


class Target:
    """One storage and one cache at paths that stay the same, brought back to the same interrupted sweep before each injection."""

    def __init__(self, cli: Cli, root: Path) -> None:
        self._cli, self._root = cli, root
        self.storage, self.cache, self._saved = root / "st", root / "cache", root / "saved"
        self._space = root / "space.yaml"
        self._space.write_text(SPACE)
        self._expected: dict[tuple[str, str], Any] = {}
        self._undisturbed_s = 0.0
        self._left: list[Process] = []

    def prepare(self) -> None:
        """Makes the interrupted sweep, saves it, and learns how it goes on undisturbed."""
        driver = self._start(fresh=True)
        while not self._ended_trials() >= 2:
            assert driver.poll() is None, self._log()
            time.sleep(0.02)
        self._kill_all(driver)
        for name in ("st", "cache"):
            shutil.copytree(self._root / name, self._saved / name, symlinks=True, ignore=shutil.ignore_patterns(".ray", "ray.json"))
        began = time.monotonic()
        code, said = self._command(fresh=False, limit_s=600)
        assert code == 0, said
        self._undisturbed_s = time.monotonic() - began
        self._expected = self._scores()
        faults = self._unsound()
        assert not faults, faults

    def suffer(self, injection: Injection) -> Outcome:
        """Carries an injection out and looks at everything afterwards."""
        outcome = Outcome(injection)
        with ExitStack() as stack:
            self._restore(injection, stack)
            begin = getattr(self, f"_{injection.kind}")
            with begin(injection, outcome) as remedy:
                pass
            self._judge(outcome, remedy)
            for process in self._left:  # what a killed driver left goes on for a while, and must not meet the next injection
                process.kill()
        return outcome

    def _restore(self, injection: Injection, stack: ExitStack) -> None:
        for path in (self.storage, self.cache):
            shutil.rmtree(path, ignore_errors=True)
        self.storage.mkdir(exist_ok=True)
        if injection.kind == "disk":
            saved_kib = sum(path.stat().st_size // 1024 + 8 for path in (self._saved / "st").rglob("*"))
            size = FRESH_DISKS_KIB[injection.seed // 10 % 2] if injection.fresh else saved_kib + ROOM_KIB
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(self.storage)], check=True)
            stack.callback(lambda: subprocess.run(["umount", "--lazy", str(self.storage)], check=True))
        if not injection.fresh:
            shutil.copytree(self._saved / "st", self.storage, symlinks=True, dirs_exist_ok=True)
        shutil.copytree(self._saved / "cache", self.cache, symlinks=True)

    @contextlib.contextmanager
    def _kill(self, injection: Injection, outcome: Outcome) -> Iterator[Any]:
        """The driver, its whole group, or one process below it."""
        driver = self._start(fresh=injection.fresh)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=injection.at * self._undisturbed_s)
        below = self._left = descendants(driver.pid)
        whom = ("the driver", "the group", "a child")[injection.pick % 3]
        outcome.what = f"kill {whom} after {injection.at:.0%}{' of a new sweep' if injection.fresh else ''}"
        if whom == "a child" and below:
            below[injection.pick // 3 % len(below)].kill()
        if whom == "a child" or driver.poll() is not None:
            self._finish(driver, outcome)
        else:
            driver.kill() if whom == "the driver" else os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            outcome.code, outcome.message = -signal.SIGKILL, "killed"
        yield lambda: None

    @contextlib.contextmanager
    def _lock(self, injection: Injection, outcome: Outcome) -> Iterator[Any]:
        """A file that is locked when the command begins, for some seconds."""
        databases = [self.storage / "ledger.sqlite", self.storage / "mlflow.db"]
        locks = [*self.storage.rglob("*.lock"), *self.cache.rglob("*.lock")]
        path = sorted([*databases * 4, *locks])[injection.pick % (8 + len(locks))]
        outcome.what = f"lock {self._name(path)} for {injection.seconds:.0f} s"
        hold = _exclusive(path) if path in databases else _flocked(path)
        began = time.monotonic()
        with hold:
            driver = self._start(fresh=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=injection.seconds)
        self._finish(driver, outcome, began=began)
        yield lambda: None

    @contextlib.contextmanager
    def _disk(self, injection: Injection, outcome: Outcome) -> Iterator[Any]:
        """A disk without room: from the start, or filled at some moment."""
        began = time.monotonic()
        driver = self._start(fresh=injection.fresh)
        if injection.fresh:
            outcome.what = f"a new sweep on a disk of {FRESH_DISKS_KIB[injection.seed // 10 % 2]} kB"
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=injection.at * self._undisturbed_s)
            fill(self.storage)
            outcome.what = f"disk full after {injection.at:.0%}"
        self._finish(driver, outcome, began=began)

        def remedy() -> None:
            (self.storage / "filler").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.storage)], check=True)

        yield remedy

    @contextlib.contextmanager
    def _cut(self, injection: Injection, outcome: Outcome) -> Iterator[Any]:
        """A file without its end."""
        with self._damaged(injection, outcome, "cut", lambda content, at: content[:at]) as remedy:
            yield remedy

    @contextlib.contextmanager
    def _flip(self, injection: Injection, outcome: Outcome) -> Iterator[Any]:
        """A file with another byte."""
        flipped = lambda content, at: content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]  # noqa: E731
        with self._damaged(injection, outcome, "flip", flipped) as remedy:
            yield remedy

    @contextlib.contextmanager
    def _damaged(self, injection: Injection, outcome: Outcome, how: str, change: Any) -> Iterator[Any]:
        path = self._pick(injection)
        content = path.read_bytes()
        at = int(injection.at * len(content))
        path.write_bytes(change(content, at))
        outcome.what = f"{how} {self._name(path)} at byte {at} of {len(content)}"
        driver = self._start(fresh=False)
        self._finish(driver, outcome)
        if outcome.message is not None and path.name not in outcome.message:
            outcome.faults.append(f"the message does not name {path.name}")

        def remedy() -> None:
            path.write_bytes(content)

        yield remedy

    def _pick(self, injection: Injection) -> Path:
        """A file with content. Files that differ by their trial alone count as one, so that the few that matter come often."""
        kinds: dict[str, list[Path]] = {}
        for path in sorted([*self.storage.rglob("*"), *self.cache.rglob("*")]):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                place = "artifact" if "mlartifacts" in path.parts else "cache" if self.cache in path.parents else "sweep"
                kinds.setdefault(f"{place} {path.name if place != 'cache' else path.suffix}", []).append(path)
        names = sorted(kinds)
        files = kinds[names[injection.pick % len(names)]]
        return files[injection.pick // len(names) % len(files)]

    def _judge(self, outcome: Outcome, remedy: Any) -> None:
        if outcome.message is None:
            outcome.faults += self._unsound(fresh=outcome.injection.fresh)
            return
        outcome.faults += self._under_reported()
        remedy()
        again = outcome.injection.fresh and not (self.storage / NAME / "spec.json").is_file()
        code, said = self._command(fresh=again, limit_s=self._limit_s)
        if code != 0:
            outcome.faults.append(f"{'run' if again else 'resume'} afterwards gives {code}: {_last(said)}")
        else:
            outcome.faults += self._unsound(fresh=outcome.injection.fresh)

    def _unsound(self, *, fresh: bool = False) -> list[str]:
        """What is wrong with a sweep that came to its end."""
        spec = SweepSpec.load(NAME, self.storage)
        faults = self._under_reported()
        status = sweep_status(spec)
        if status["state"] != "done":
            faults.append(f"status says {status['state']}")
        ledger = Ledger(spec.resolved_ledger_url)
        faults += [f"ledger: {finding}" for finding in ledger.verify(epsilon_of_charge)]
        if ledger.open_reservations(NAME):
            faults.append("the ledger has open reservations")
        ledger.close()
        records = read_results(spec.sweep_dir).records
        if len(records) != PLANNED or {record.state for record in records} != {"done"}:
            faults.append(f"results: {[(record.trial_id, record.state) for record in records]}")
        if not fresh and self._differing():
            faults.append(f"the results are not those of the undisturbed sweep: {self._differing()}")
        if not (spec.sweep_dir / "report" / "report.md").is_file():
            faults.append("no report")
        return faults + self._mlflow_faults()

    def _scores(self) -> dict[tuple[str, str], Any]:
        """What came out, by trial and settings: who resumes once more draws other settings for the trials that are still to come."""
        records = read_results(self.storage / NAME).records
        return {
            (one.trial_id, one.fingerprint): (one.pckh_50, one.epsilon_spent, one.attempt, [point.step for point in one.curve])
            for one in records
        }

    def _differing(self) -> list[str]:
        found = self._scores()
        return [trial for (trial, settings), told in self._expected.items() if found.get((trial, settings), told) != told]

    def _mlflow_faults(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.storage / "mlflow.db")) as connection:
            states = dict(connection.execute("SELECT status, count(*) FROM runs WHERE lifecycle_stage = 'active' GROUP BY status"))
            told = [trial for (trial,) in connection.execute("SELECT value FROM tags WHERE key = 'trial_id'")]
        faults = [f"MLflow has runs {states}"] if set(states) - {"FINISHED", "FAILED"} else []
        return faults + ([f"MLflow has trials {sorted(told)}"] if len(told) != len(set(told)) or len(told) < PLANNED else [])

    def _under_reported(self) -> list[str]:
        """Private trials that began to report and have no reservation, neither in the ledger nor in its witness."""
        folders = (self.storage / NAME / "checkpoints").glob("e*/digests.jsonl")
        ran = {path.parent.name for path in folders if path.stat().st_size}
        reserved: set[str] = set()
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self.storage / "ledger.sqlite")) as connection:
            reserved = {trial for (trial,) in connection.execute("SELECT trial_id FROM lines WHERE kind = 'reserve'")}
        for witness in (self.storage / "ledger.sqlite.witness", self.storage / NAME / "ledger.witness"):
            text = witness.read_bytes().decode(errors="replace") if witness.is_file() else ""
            reserved |= {trial for trial in ran if f'"trial_id":"{trial}"' in text}
        return [f"ran without a reservation: {sorted(ran - reserved)}"] if ran - reserved else []

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    @property
    def _limit_s(self) -> float:
        return HANG_S + SLACK * self._undisturbed_s

    def _arguments(self, *, fresh: bool) -> list[str]:
        if not fresh:
            return ["resume", NAME, "--storage", str(self.storage)]
        where = ["--storage", str(self.storage), "--cache-dir", str(self.cache), "--max-concurrent", "1"]
        return ["run", str(self._space), "--name", NAME, *where]

    def _start(self, *, fresh: bool) -> subprocess.Popen[bytes]:
        line = [*self._cli.command, *self._arguments(fresh=fresh)]
        with (self._root / "log").open("wb") as log:
            return subprocess.Popen(line, env=self._cli.environment, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)

    def _command(self, *, fresh: bool, limit_s: float) -> tuple[int, str]:
        driver = self._start(fresh=fresh)
        try:
            return driver.wait(timeout=limit_s), self._log()
        except subprocess.TimeoutExpired:
            self._kill_all(driver)
            return -1, f"{self._log()}\nhangs after {limit_s:.0f} s"

    def _finish(self, driver: subprocess.Popen[bytes], outcome: Outcome, *, began: float | None = None) -> None:
        """Waits for the command and reads what it said."""
        began = time.monotonic() if began is None else began
        try:
            outcome.code = driver.wait(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._kill_all(driver)
            outcome.code = -1
            outcome.faults.append(f"hangs: no end after {self._limit_s:.0f} s")
        outcome.seconds = time.monotonic() - began
        said = outcome.said = self._log()
        if "Traceback" in said:
            outcome.faults.append(f"a traceback: {_last(said)}")
        if outcome.code != 0:
            outcome.message = _last(said)
            if not any(line.startswith("dpsweep: ") for line in said.splitlines()):
                outcome.faults.append("no message")

    def _kill_all(self, driver: subprocess.Popen[bytes]) -> None:
        below: list[Process] = descendants(driver.pid)
        driver.kill()
        driver.wait()
        for process in below:
            process.kill()

    def _log(self) -> str:
        return (self._root / "log").read_text(errors="replace")

    def _ended_trials(self) -> int:
        return sum("]  e" in line for line in self._log().splitlines())


def _last(said: str) -> str:
    """The message: the last line of ours, or the last one at all."""
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("dpsweep: ")]
    return (own or lines or ["nothing was said"])[-1].replace("|", "/")


@contextlib.contextmanager
def _flocked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()
