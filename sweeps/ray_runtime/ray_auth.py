"""Who may talk to Ray: a token for a Ray of our own, and the right token for one that runs already.

Ray without a token runs anyone's code who can reach it. With `RAY_AUTH_MODE=token` it takes the token from
RAY_AUTH_TOKEN, from the file that RAY_AUTH_TOKEN_PATH names, or from ~/.ray/auth_token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from pathlib import Path

from dpcore.errors import Unavailable
from sweeps.internals.ray_internals import enable_token_if_there_is_one

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
CONNECT_WITHIN_S = 5.0
RESOLVE_WITHIN_S = 10.0
LOOPBACK = "127.0.0.1"


def default_token_path() -> Path:
    """Where Ray looks when no variable says otherwise."""
    return Path.home() / ".ray" / "auth_token"


def has_token() -> bool:
    """Whether Ray would find a token."""
    return bool(os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)) or default_token_path().is_file()


def guard_own_ray() -> None:
    """Before a Ray of our own starts: without a token anywhere, draws one for this process and its children.

    Ray then asks for it (its default for a new cluster, unless RAY_AUTH_MODE says otherwise). It would make one itself, in
    ~/.ray/auth_token, where other users of the machine may be able to read it.
    """
    if os.environ.get(MODE, "token").lower() == "token" and not has_token():
        os.environ[TOKEN] = secrets.token_hex(32)


def show_token() -> None:
    """Before talking to a Ray that runs: shows it the token, where there is one and RAY_AUTH_MODE is not set.

    Ray does so for `auto` alone. Its settings are read once, at import; this reads them again.
    """
    enable_token_if_there_is_one()


def knock(host: str, port: int, *, remedy: str) -> None:
    """Tries a port first: Ray's own connections wait minutes.

    Raises:
        Unavailable: nothing listens there.
    """
    try:
        socket.create_connection((host, port), timeout=CONNECT_WITHIN_S).close()
    except OSError as error:
        raise Unavailable(f"no Ray answers at {host}:{port} ({error}); {remedy}") from None


def check_machine() -> None:
    """Tries what a Ray of our own needs of the machine: without a loopback it hangs, and a host name that does not resolve costs
    it minutes.

    Raises:
        Unavailable: one of them is missing.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=CONNECT_WITHIN_S).close()
    except OSError as error:
        raise Unavailable(
            f"Ray cannot start: this machine does not reach itself at {LOOPBACK} ({error}); bring the loopback interface up "
            "(`ip link set lo up`)"
        ) from None
    name = socket.gethostname()
    if not _resolves_within(name, RESOLVE_WITHIN_S):
        raise Unavailable(
            f"Ray cannot start: the host name {name} does not resolve within {RESOLVE_WITHIN_S:g} s; add it to /etc/hosts "
            f"(`{LOOPBACK} {name}`) or give the machine a name that resolves"
        )


def _resolves_within(name: str, seconds: float) -> bool:
    """The resolver takes no deadline: it is asked in a thread that may be left behind."""
    found = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(name, None)
            found.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return found.is_set()
