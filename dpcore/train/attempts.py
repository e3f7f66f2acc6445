"""Which try at a trial this is, and where in the trial it begins. Torch-free: a driver decides on it and charges it.

A repetition that computes the very same sums under the very same noise is no new release: it stays the same attempt. Any
other try is a new attempt: its noise is fresh from its first step on, and the steps that it takes are charged again, because
two sums under one noise would reveal their difference, and because what an earlier attempt has told is out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dpcore.config import Part

CHECKPOINT_PREFIX = "checkpoint-"
IDENTITY_FILE = "trial.json"
RESULT_FILE = "result.json"


class Attempt(Part):
    """A try at a trial.

    The released weights of an attempt are a function of `from_step` steps of earlier attempts and the rest of its own: as
    many steps as were planned, whatever else was charged.
    """

    number: int = Field(default=0, ge=0, description="grows by one for every try that is no replay; names the secret streams")
    from_step: int = Field(default=0, ge=0, description="private steps behind the checkpoint that it goes on from")
    physical_batch_size: int | None = Field(default=None, ge=1, description="smaller than the runtime's, since memory ran out at that")

    @model_validator(mode="after")
    def _first_begins_at_the_beginning(self) -> Self:
        if self.number == 0 and self.from_step:
            raise ValueError(f"attempt 0 begins at step 0, given from_step {self.from_step}")
        if self.number == 0 and self.physical_batch_size is not None:
            raise ValueError("attempt 0 has the runtime's physical batch: another one rounds its sums otherwise")
        return self

    def next_in(self, folder: Path) -> Attempt:
        """The attempt after this one, going on from the newest checkpoint in `folder`, from the start without one."""
        return self.next_from(newest_checkpoint_step(folder))

    def next_from(self, step: int) -> Attempt:
        """The attempt after this one, going on from the checkpoint of a step."""
        return self.model_copy(update={"number": self.number + 1, "from_step": step})


FIRST = Attempt()


def newest_checkpoint_step(folder: Path) -> int:
    """The steps behind the newest checkpoint of a trial's folder, 0 without one."""
    return max((int(path.name.removeprefix(CHECKPOINT_PREFIX)) for path in folder.glob(f"{CHECKPOINT_PREFIX}*")), default=0)


def drop_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a trial that nobody will take up again; its book stays."""
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(path)
