"""What can go wrong, as one tree.

    DpsweepError
    ├── BadInput        the request is wrong: unknown key, impossible setting, missing file   (exit 2)
    ├── Refused         the request is clear but would break a guarantee or overwrite work    (exit 2)
    │   └── NotReplayable   the same release cannot be repeated here; a new attempt can go on, charged again
    ├── Unavailable     a service or file that must be there is not: Ray, MLflow, the ledger  (exit 1)
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


class Corrupt(DpsweepError):
    """Stored data is not what its manifest says."""

    exit_code = 2
