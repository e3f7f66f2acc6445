"""What dpsweep uses of Ray's private modules: token authentication and the check of launcher files.

Ray offers no public way to read its authentication settings again after import, to ask whether a token is required, or to
check a launcher file without starting a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
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
