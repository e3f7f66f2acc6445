"""A trial that is interrupted at any step and resumed is bit for bit the undisturbed one, or says why it cannot be."""

import stat
from collections.abc import Callable
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import pytest
import torch
from planned_trials import handed
from safetensors.torch import load_file

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.errors import Corrupt, NotReplayable, Refused
from dpcore.privacy import mechanism
from dpcore.privacy.clipping import BoundedSum
from dpcore.privacy.mechanism import Direction, Mechanism
from dpcore.privacy.noise import NoisedSum
from dpcore.privacy.randomness import RandomStream, SweepKey
from dpcore.train import checkpoint, replay
from dpcore.train.attempts import FIRST, Attempt, newest_checkpoint_step
from dpcore.train.trainer import Report, run_trial

Make = Callable[..., TrialConfig]
STEPS = 5


class Killed(BaseException):
    """Ends a trial in mid-step, like a signal."""


class Trial:
    """One trial, run in pieces."""

    def __init__(self, config: TrialConfig, places: Places, key: SweepKey, patch: pytest.MonkeyPatch) -> None:
        self.config, self._places, self._key, self._patch = config, places, key, patch

    def run(self, runtime: RuntimeFlags, folder: Path | None, *, attempt: Attempt = FIRST, key: SweepKey | None = None) -> list[Report]:
        whole = run_trial(
            self.config,
            runtime,
            handed(self.config, places=self._places, trial_id="t", key=key or self._key, folder=folder, attempt=attempt),
        )
        return list(whole)

    def run_until_killed(self, runtime: RuntimeFlags, folder: Path, *, in_step: int, attempt: Attempt = FIRST) -> None:
        """Runs until step `in_step` has been computed and nothing has been kept of it."""
        direction = Mechanism.direction

        def dying(self: Mechanism, step: int) -> Direction:
            released = direction(self, step)
            if step == in_step:
                raise Killed
            return released

        with self._patch.context() as patch:
            patch.setattr(Mechanism, "direction", dying)
            with pytest.raises(Killed):
                self.run(runtime, folder, attempt=attempt)


@pytest.fixture
def make_trial(train_places: Places, make_config: Make, key: SweepKey, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """A trial of five steps by method; dotted paths change it."""

    def make(method: str = "dpsgd", **paths: Any) -> Trial:
        return Trial(make_config(method, **{"stages__private__steps": STEPS, **paths}), train_places, key, monkeypatch)

    return make


def flags(*, report: int = 1, checkpoint: int = 2, physical: int = 16) -> RuntimeFlags:
    return RuntimeFlags(physical_batch_size=physical, report_every_steps=report, checkpoint_every_steps=checkpoint)


def told(reports: list[Report]) -> list[tuple[int, str, dict[str, float]]]:
    """All that a report tells but its wall time."""
    return [(r.step, r.weights_digest, {name: value for name, value in r.metrics.items() if name != "time/step_s"}) for r in reports]


@pytest.mark.parametrize(
    ("method", "report", "checkpoint", "changes"),
    [
        ("dpsgd", 1, 1, {"ema_decay": 0.5}),
        ("dpsgd", 2, 3, {"optimizer__name": "sgd"}),
        ("projected", 1, 2, {"ema_decay": 0.5}),
        ("projected", 2, 1, {"subspace": {"rank": 4, "examples": 16, "refresh_steps": 2}}),
        ("feature", 1, 2, {"augmentation__flip_prob": 0.5}),
        ("feature", 2, 1, {"ema_decay": 0.5, "start": "public_view", "stages__public_view": {"steps": 3, "batch_size": 8}}),
        ("feature_projected", 1, 3, {"subspace": {"rank": 4, "examples": 16, "refresh_steps": 3, "source": "public_view"}}),
        ("feature_projected", 2, 2, {"ema_decay": 0.5, "subspace": {"rank": 4, "examples": 16, "order": "project_then_clip"}}),
    ],
)
def test_a_trial_killed_in_any_step_and_resumed_equals_the_undisturbed_one(
    method: str, report: int, checkpoint: int, changes: dict[str, Any], make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    trial, runtime = make_trial(method, **changes), flags(report=report, checkpoint=checkpoint)
    undisturbed = trial.run(runtime, tmp_path / "whole")
    weights = (tmp_path / "whole" / "model" / "model.safetensors").read_bytes()
    for step in range(STEPS):
        folder = tmp_path / f"killed-{step}"
        trial.run_until_killed(runtime, folder, in_step=step)
        assert newest_checkpoint_step(folder) == step // checkpoint * checkpoint
        assert told(trial.run(runtime, folder)) == told(undisturbed)
        assert (folder / "model" / "model.safetensors").read_bytes() == weights


def test_a_trial_killed_again_and_again_equals_the_undisturbed_one(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial = make_trial("feature_projected")
    for step in (1, 1, 0, 3, 4, 4):  # of what is left: a step before the newest checkpoint is not computed again
        if newest_checkpoint_step(tmp_path / "killed") <= step:
            trial.run_until_killed(flags(), tmp_path / "killed", in_step=step)
    assert told(trial.run(flags(), tmp_path / "killed")) == told(trial.run(flags(), None))


def test_a_resumed_trial_has_the_very_sums_of_the_undisturbed_one_under_its_noise(
    make_trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL rounds the projection of a single row, here every one, by where in memory its operands lie, and safetensors reads them to
    anywhere. Weights hardly ever show it."""
    sums: list[bytes] = []
    honest = mechanism.add_noise

    def watched(bounded: BoundedSum, *, noise_multiplier: float, stream: RandomStream) -> NoisedSum:
        sums.append(bounded.value.numpy().tobytes())
        return honest(bounded, noise_multiplier=noise_multiplier, stream=stream)

    def read_to_an_odd_place(path: Path) -> dict[str, torch.Tensor]:
        return {name: torch.cat([torch.zeros(1), tensor.flatten()])[1:].view_as(tensor) for name, tensor in load_file(path).items()}

    monkeypatch.setattr(mechanism, "add_noise", watched)
    monkeypatch.setattr(checkpoint, "load_file", read_to_an_odd_place)
    trial = make_trial("projected", subspace={"rank": 4, "examples": 16, "refresh_steps": 2})
    runtime = flags(checkpoint=1, physical=1)
    trial.run(runtime, None)
    undisturbed = sums[:]
    for step in (1, 2, 3, 4):
        trial.run_until_killed(runtime, tmp_path / f"killed-{step}", in_step=step)
        sums.clear()
        trial.run(runtime, tmp_path / f"killed-{step}")
        assert sums == undisturbed[step:]


def test_a_report_leaves_only_after_its_checkpoint_is_kept(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial = make_trial()
    running = run_trial(
        trial.config,
        flags(checkpoint=1),
        handed(trial.config, places=trial._places, trial_id="t", key=trial._key, folder=tmp_path / "trial"),
    )
    for report in running:
        assert report.done or newest_checkpoint_step(tmp_path / "trial") == report.step


def test_a_new_attempt_goes_on_from_the_checkpoint_under_fresh_noise(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    undisturbed = trial.run(flags(), None)
    trial.run_until_killed(flags(), folder, in_step=3)  # steps 1 to 3 are reported, 2 is kept
    attempt = FIRST.next_in(folder)
    assert attempt == Attempt(number=1, from_step=2)
    again = trial.run(flags(), folder, attempt=attempt)
    same = [mine.weights_digest == theirs.weights_digest for mine, theirs in zip(again, undisturbed, strict=True)]
    assert same == [True, True, False, False, False]
    with pytest.raises(Refused, match="attempt 0 has ended"):
        trial.run(flags(), folder)
    with pytest.raises(Refused, match="finished trial"):
        trial.run(flags(), folder, attempt=attempt.next_in(folder))


def test_what_an_earlier_attempt_reported_stays_on_record(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(flags(), folder, in_step=3)
    before = (folder / "digests.jsonl").read_text()
    trial.run(flags(), folder, attempt=FIRST.next_in(folder))
    after = (folder / "digests.jsonl").read_text()
    assert after.startswith(before + '{"attempt": 1, "from_step": 2}\n')


def test_a_new_attempt_is_itself_resumed_bit_for_bit(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, attempt = make_trial("projected"), Attempt(number=1, from_step=2)
    ends = []
    for name, kills in (("whole", ()), ("killed", (2, 4))):
        folder = tmp_path / name
        trial.run_until_killed(flags(), folder, in_step=3)
        for step in kills:
            trial.run_until_killed(flags(), folder, in_step=step, attempt=attempt)
        ends.append(told(trial.run(flags(), folder, attempt=attempt)))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("change", ["physical_batch_size", "key", "python", "instruction set"])
def test_what_may_round_or_draw_otherwise_is_refused_by_name_and_allowed_for_a_new_attempt(
    change: str, make_trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, folder, runtime, key = make_trial(), tmp_path / "trial", flags(), None
    trial.run_until_killed(flags(), folder, in_step=3)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if change == "physical_batch_size":
        runtime = flags(physical=8)
    elif change == "key":
        key = SweepKey(bytes(32))
    elif change == "python":
        monkeypatch.setattr(replay.platform, "python_version", lambda: "3.99.0")
    else:
        monkeypatch.setattr(replay.torch.backends.cpu, "get_cpu_capability", lambda: "other")
    part = {"key": "key", "python": "libraries", "instruction set": "machine"}.get(change, "runtime")
    with pytest.raises(NotReplayable, match=f"{part}: .* there, .* now.*charged again"):
        trial.run(runtime, folder, key=key)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    assert trial.run(runtime, folder, key=key, attempt=FIRST.next_in(folder))[-1].done


def test_a_finished_trial_repeats_its_reports_on_any_machine(
    make_trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial()
    reports = trial.run(flags(), tmp_path)
    monkeypatch.setattr(replay.platform, "python_version", lambda: "3.99.0")
    assert told(trial.run(flags(physical=8), tmp_path)) == told(reports)


def test_an_attempt_whose_checkpoint_is_gone_does_not_take_more_steps_than_were_charged(
    make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(flags(), folder, in_step=1)
    with pytest.raises(NotReplayable, match="no checkpoint of step 2"):
        trial.run(flags(), folder, attempt=Attempt(number=1, from_step=2))


@pytest.mark.parametrize("damage", ["a flipped byte", "no state", "half of meta", "no meta"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(damage: str, make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(flags(), folder, in_step=3)
    checkpoint = next(folder.glob("checkpoint-*"))
    state, meta = checkpoint / "state.safetensors", checkpoint / "meta.json"
    if damage == "a flipped byte":
        content = bytearray(state.read_bytes())
        content[-1] ^= 1
        state.write_bytes(bytes(content))
    elif damage == "half of meta":
        meta.write_text(meta.read_text()[:20])
    else:
        (state if damage == "no state" else meta).unlink()
    with pytest.raises(Corrupt, match="remove"):
        trial.run(flags(), folder)


def test_torn_tails_and_unfinished_files_of_a_kill_are_cleared_away(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(flags(), folder, in_step=3)
    with (folder / "digests.jsonl").open("a") as file:
        file.write('{"step": 4, "weights_di')
    (folder / ".trial.json.1.tmp").write_text("{")
    (folder / ".checkpoint-000004-x.tmp").mkdir()
    assert told(trial.run(flags(), folder)) == told(trial.run(flags(), None))
    assert not list(folder.glob(".*"))


def test_a_line_within_the_record_that_is_torn_is_corrupt(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(flags(), folder, in_step=3)
    lines = (folder / "digests.jsonl").read_text().splitlines(keepends=True)
    (folder / "digests.jsonl").write_text(lines[0][:10] + "\n" + "".join(lines[1:]))
    with pytest.raises(Corrupt, match=r"digests\.jsonl"):
        trial.run(flags(), folder)


def test_a_checkpoints_tensors_lie_where_torch_puts_new_ones(tmp_path: Path) -> None:
    """Read in place, they lie wherever the file has them, and a product of a single row rounds by its place in memory."""
    with checkpoint.open_trial_folder(tmp_path / "trial") as store:
        store.settle_identity({"attempt": 0, "from_step": 0})
        store.save_checkpoint(checkpoint.Checkpoint(3, {f"part {size}": torch.ones(size) for size in range(1, 9)}))
        loaded = store.load_checkpoint()
    assert loaded is not None
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.tensors.values())


def test_a_checkpoint_is_for_its_owner_alone(make_trial: Callable[..., Trial], tmp_path: Path) -> None:
    """It holds weights that were never released: those between two reports."""
    trial, folder = make_trial(), tmp_path / "trial"
    trial.run_until_killed(RuntimeFlags(physical_batch_size=16, report_every_steps=2, checkpoint_every_steps=2), folder, in_step=3)
    (kept,) = folder.glob("checkpoint-*")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_a_trial_ends_on_its_rung_and_goes_on_from_there_to_the_very_weights_of_the_undisturbed_one(
    make_trial: Callable[..., Trial], tmp_path: Path
) -> None:
    """Reports and checkpoints of every fourth step miss the rung at step 3: it has its own of both."""
    trial, runtime = make_trial(), RuntimeFlags(physical_batch_size=16, report_every_steps=4, checkpoint_every_steps=4)
    undisturbed, folder = trial.run(runtime, None), tmp_path / "trial"
    whole = handed(trial.config, places=trial._places, trial_id="t", key=trial._key, folder=folder)
    assert whole.plan is not None
    on_rung = replace_fields(whole, plan=replace_fields(whole.plan, until=3))
    assert [(report.step, report.done) for report in run_trial(trial.config, runtime, on_rung)] == [(3, False)]
    assert newest_checkpoint_step(folder) == 3
    climbed = list(run_trial(trial.config, runtime, whole))
    assert [report.step for report in climbed] == [3, 4, 5]
    assert climbed[1:] == [replace_fields(report, metrics=later.metrics) for report, later in zip(undisturbed, climbed[1:], strict=True)]
    assert climbed[-1].metrics["val/pckh_50"] == undisturbed[-1].metrics["val/pckh_50"]
