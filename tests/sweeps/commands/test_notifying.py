"""The end of a sweep is told to whoever wants to hear it; scores, errors and secrets are not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import dpsweep
from dpcore.errors import BadInput, Refused
from sweeps.remote.notifying import notified

RECEIVED: list[dict[str, str]] = []


class Receiver(BaseHTTPRequestHandler):
    """An address of apprise's kind json://."""

    def do_POST(self) -> None:
        RECEIVED.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    RECEIVED.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Ended:
    stopped_by: str | None = None
    has_winner = True
    sweep_epsilon: float | None = 6.2134


def test_the_end_and_the_price_are_told(address: str) -> None:
    with notified("ours", [address]) as ending:
        ending.results = Ended()
    (told,) = RECEIVED
    assert told["message"].startswith("sweep ours is done, at ε = 6.21 for the whole sweep.")


def test_a_failure_is_told_without_its_words(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPSWEEP_NOTIFY", address)
    with pytest.raises(Refused), notified("ours"):
        raise Refused("cannot read ward7-IMG_48213-maria.jpg")
    assert "sweep ours failed" in RECEIVED[0]["message"]
    assert "maria" not in json.dumps(RECEIVED)


def test_a_wrong_address_is_refused_before_anything_begins_and_its_secret_is_not_repeated() -> None:
    began = []
    with pytest.raises(BadInput, match=r"nosuch://\.\.\. is no address") as refused, notified("ours", ["nosuch://token-abc@host"]):
        began.append(1)
    assert began == []
    assert "token-abc" not in str(refused.value)


def test_nobody_is_told_where_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPSWEEP_NOTIFY", raising=False)
    with dpsweep.notified("ours") as ending:
        ending.results = Ended()
