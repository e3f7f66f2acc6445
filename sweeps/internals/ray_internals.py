"""What dpsweep uses of Ray's private modules: token authentication, the check of launcher files, where Tune writes, and
which worker a trial has.

Ray offers no public way to read its authentication settings again after import, to ask whether a token is required, or to
check a launcher file without starting a cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SEEN_WITH = "2.60.0"


def enable_token_if_there_is_one() -> None:
    """Reads Ray's authentication settings again, and turns token authentication on where a token is found."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def asks_for_token() -> bool:
    """Whether this process and the Ray that it is connected to use a token."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def check_launcher_config(config: Mapping[str, Any]) -> None:
    """Checks the content of a launcher file as `ray up` does.

    Raises:
        jsonschema.ValidationError, ValueError, KeyError: what Ray finds wrong.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(dict(config)))


def kill_worker(trial: Any) -> None:
    """Kills the worker of one of Tune's trials, also one that hangs. Tune then tells the trial's failure.

    Tune's own way to stop a trial waits for the worker, ten minutes of a hanging one.
    """
    import ray

    worker = trial.temporary_state.ray_actor
    if worker is not None:
        ray.kill(worker)


@contextlib.contextmanager
def staging_in(folder: Path) -> Iterator[None]:
    """Lets Tune write its driver's files below a folder of ours.

    Tune has no setting for it: it writes below the session of whichever Ray it finds (seen with Ray 2.60). Of a Ray that was
    running already that session is not ours, and stays.
    """
    from ray.train._internal import storage

    name = "_get_ray_train_session_dir"
    before = getattr(storage, name)
    setattr(storage, name, folder.as_posix)
    try:
        yield
    finally:
        setattr(storage, name, before)
