"""What can go wrong, as one tree.

    DpsweepError
    ├── BadInput        the request is wrong: unknown key, impossible setting, missing file   (exit 2)
    ├── Refused         the request is clear but would break a guarantee or overwrite work    (exit 2)
    │   └── NotReplayable   the same release cannot be repeated here; a new attempt can go on, charged again
    ├── Unavailable     a service or file that must be there is not: Ray, MLflow, the ledger  (exit 1)
    ├── OutOfMemory     a step did not fit; half the physical batch may, as a new attempt      (exit 1)
    ├── DiskFull        nothing more can be written; what is there is whole                    (exit 1)
    ├── Diverged        a trial's weights are no numbers any more                              (exit 1)
    └── Corrupt         stored bytes differ from what their manifest promises                  (exit 2)

A message names what was given, what was expected and what to do next. The command line prints it
without a traceback; everything that is not a DpsweepError is a bug and keeps its traceback.
"""


class DpsweepError(Exception):
    """Base of every error that dpsweep raises on purpose."""

    exit_code = 1


class BadInput(DpsweepError, ValueError):
    """The request is wrong and a person can mend it."""

    exit_code = 2


class Refused(DpsweepError):
    """The request would break a guarantee or destroy earlier work."""

    exit_code = 2


class NotReplayable(Refused):
    """The very same release cannot be repeated here. A new attempt may go on, under fresh noise that is charged again."""


class Unavailable(DpsweepError):
    """Something outside this process does not answer."""

    exit_code = 1


class OutOfMemory(DpsweepError):
    """A step did not fit into memory with `physical_batch_size` examples at once."""

    def __init__(self, message: str, *, physical_batch_size: int) -> None:
        super().__init__(message)
        self.physical_batch_size = physical_batch_size


class DiskFull(DpsweepError):
    """A file could not be written for lack of space. What was there before is whole, and goes on once there is room."""


class Diverged(DpsweepError):
    """The weights that a trial released are no numbers any more."""


class Corrupt(DpsweepError):
    """Stored data is not what its manifest says."""

    exit_code = 2
