"""What can go wrong, as one tree.

    DpsweepError
    ├── BadInput        the request is wrong: unknown key, impossible setting, missing file    (exit 2)
    ├── Refused         the request is clear but would break a guarantee or overwrite work    (exit 2)
    │   ├── NotReplayable   the same release cannot be repeated here; a new attempt can continue, charged again
    │   └── NotAsPlanned    the run did something else than was reserved: its claim is void
    ├── Unavailable     a needed service or file is missing: Ray, MLflow, the ledger           (exit 1)
    ├── OutOfMemory     a step did not fit; a new attempt with half the physical batch may     (exit 1)
    ├── DiskFull        no space is left to write; what was written before is complete         (exit 1)
    ├── Diverged        a trial's weights are NaN or infinite                                  (exit 1)
    └── Corrupt         stored bytes differ from what their manifest says                      (exit 2)

A message names what was given, what was expected and what to do next. The command line prints it without a traceback. Everything that
is not a DpsweepError is a bug and keeps its traceback.
"""


class DpsweepError(Exception):
    """Base of every error that dpsweep raises on purpose."""

    exit_code = 1


class BadInput(DpsweepError, ValueError):
    """The request is wrong, and a person can correct it."""

    exit_code = 2


class Refused(DpsweepError):
    """The request would break a guarantee or destroy earlier work."""

    exit_code = 2


class NotReplayable(Refused):
    """The same release cannot be repeated here. A new attempt may continue with fresh noise, which is charged again."""


class NotAsPlanned(Refused):
    """What a run did, or says that it did, is not what its reservation holds. Its reservation stays charged; its claim is void."""


class Unavailable(DpsweepError):
    """Something outside this process does not answer."""

    exit_code = 1


class OutOfMemory(DpsweepError):
    """A step did not fit into memory with `physical_batch_size` examples at once."""

    def __init__(self, message: str, *, physical_batch_size: int) -> None:
        super().__init__(message)
        self.physical_batch_size = physical_batch_size


class DiskFull(DpsweepError):
    """A file could not be written, because the disk is full. Earlier files are complete, so the work can continue once there is space."""


class Diverged(DpsweepError):
    """The weights that a trial released are NaN or infinite."""


class Corrupt(DpsweepError):
    """Stored data differs from its manifest."""

    exit_code = 2
