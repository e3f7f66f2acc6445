"""Faults of a running trial, each by its name: memory that runs out in a step, weights that diverge."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.errors import Diverged, OutOfMemory
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import SweepKey
from dpcore.train.attempts import FIRST, Attempt
from dpcore.train.physical_batch import is_out_of_memory
from dpcore.train.trainer import run_trial

FLAGS = RuntimeFlags(physical_batch_size=16, report_every_steps=2, checkpoint_every_steps=4)


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**46, dtype=torch.uint8), lambda: np.ones(2**46, dtype=np.uint8)])
def test_a_failed_allocation_is_out_of_memory_whoever_made_it(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as failure:
        allocate()
    assert is_out_of_memory(failure.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not agree"))


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Memory for so many examples at once, from the n-th pass on."""
    real = GradientEngine.clipped_sum

    def limit(examples: int, *, after_passes: int = 0) -> None:
        passes: list[int] = []

        def clipped_sum(self: GradientEngine, batch: Batch, *others: Any, **given: Any) -> Any:
            passes.append(len(batch.inputs))
            if len(passes) > after_passes and len(batch.inputs) > examples:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, batch, *others, **given)

        monkeypatch.setattr(GradientEngine, "clipped_sum", clipped_sum)

    return limit


def test_a_step_without_memory_goes_on_at_half_the_physical_batch_and_takes_no_step_twice(
    room_for: Callable[..., None],
    make_config: Callable[..., TrialConfig],
    train_places: Places,
    key: SweepKey,
    trial_folder: Path,
) -> None:
    def run(attempt: Attempt) -> list[int]:
        given: dict[str, Any] = {"places": train_places, "trial_id": "t", "key": key, "folder": trial_folder, "attempt": attempt}
        return [report.step for report in run_trial(config, FLAGS, handed(config, **given))]

    config = make_config("dpsgd", stages__private__expected_batch_size=48)  # of 64: steps of several physical batches
    room_for(8, after_passes=9)
    with pytest.raises(OutOfMemory, match="with 16 examples at once") as out:
        run(FIRST)
    assert out.value.physical_batch_size == 16
    checkpoint = next(trial_folder.glob("checkpoint-*"))
    assert 2 <= int(checkpoint.name[-1]) <= 4  # the steps of 2 to 4 passes before it, though none was due
    room_for(8)
    second = FIRST.next_in(trial_folder).model_copy(update={"physical_batch_size": 8})
    assert second.from_step == int(checkpoint.name[-1])
    assert run(second)[-1] == 6
    assert json.loads((trial_folder / "trial.json").read_text())["runtime"]["physical_batch_size"] == 8
    assert json.loads((trial_folder / "result.json").read_text())["runtime"]["physical_batch_size"] == 8


@pytest.mark.parametrize("sealed", [False, True])
def test_weights_that_are_no_numbers_end_the_trial_by_name_unless_nothing_of_it_may_be_told(
    sealed: bool, make_config: Callable[..., TrialConfig], train_places: Places, key: SweepKey, trial_folder: Path
) -> None:
    config = make_config("nonprivate", optimizer__learning_rate=1e30)
    reports = run_trial(config, FLAGS, handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder, sealed=sealed))
    if sealed:
        assert list(reports)[-1].done
    else:
        with pytest.raises(Diverged, match="smaller learning rate"):
            list(reports)
