"""Runs with public views are told once it is known what the views disclose; others at once."""

from typing import Any

from sweeps.tracking.held_back import HeldBack


class Heard:
    """A tracker that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **_: self.told.append((name, *given))


class OfSplit:
    """As much of a record as decides whether it waits."""

    def __init__(self, split: str | None) -> None:
        self.config = self
        self.split = split


def told(given: list[Any]) -> list[str]:
    return [name for name, *_ in given]


def test_what_concerns_a_split_waits_for_the_disclosure_and_keeps_its_order() -> None:
    heard, blurred, plain = Heard(), OfSplit("blur"), OfSplit(None)
    held = HeldBack(heard)
    held.trial_started(blurred)  # type: ignore[arg-type]
    held.trial_started(plain)  # type: ignore[arg-type]
    held.reported(blurred, "first")  # type: ignore[arg-type]
    held.trial_ended(plain)  # type: ignore[arg-type]
    held.trial_ended(blurred)  # type: ignore[arg-type]
    assert heard.told == [("trial_started", plain), ("trial_ended", plain)]
    held.views_disclosed("policy", "sheet")  # type: ignore[arg-type]
    later = [("views_disclosed", "policy", "sheet"), ("trial_started", blurred), ("reported", blurred, "first"), ("trial_ended", blurred)]
    assert heard.told[2:] == later
    held.trial_started(blurred)  # type: ignore[arg-type]
    assert told(heard.told)[-1] == "trial_started"


def test_a_tracker_that_closes_without_a_disclosure_hears_no_claim_that_lacks_it() -> None:
    """The sweep was interrupted: its next driver tells it all, with the disclosure."""
    heard = Heard()
    held = HeldBack(heard)
    held.trial_started(OfSplit("blur"))  # type: ignore[arg-type]
    held.close(interrupted=True)
    assert told(heard.told) == ["close"]
