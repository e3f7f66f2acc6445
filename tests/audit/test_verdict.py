"""What a report says of its findings: who is asked, when a check is made again, what is printed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dpcore.audit import trainer, verdict
from dpcore.audit.verdict import AuditKind, AuditRequest, run_audit
from dpcore.config import RuntimeFlags
from dpcore.errors import BadInput, Refused

CANARIES: dict[AuditKind, int] = {"mechanism": 1000, "trainer": 100, "repeated": 20}


def request(claims: Any, *, kinds: tuple[AuditKind, ...] = ("mechanism",), method: str = "dpsgd", **given: Any) -> AuditRequest:
    config = given.pop("config", None) or claims.config(method, **given.pop("changes", {}))
    values: dict[str, Any] = {"canaries": CANARIES, "cache_dir": claims.cache_dir} | given
    return AuditRequest(config=config, runtime=RuntimeFlags(), kinds=kinds, **values)


def answered(monkeypatch: pytest.MonkeyPatch, bounds: list[float]) -> list[tuple[int, float]]:
    """Attacks on the mechanism that refute the given ε, one after the other; returns what they were asked for."""
    asked: list[tuple[int, float]] = []

    def attack(target: Any, *, canaries: int, significance: float, progress: Any) -> float:
        asked.append((canaries, significance))
        return bounds[len(asked) - 1]

    monkeypatch.setattr(verdict, "audit_mechanism", attack)
    return asked


def silent(name: str, share: float) -> None: ...


def test_a_claim_is_attacked_as_it_is_and_at_full_batch(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, [3.0, 3.5])
    report = run_audit(request(claims), silent)
    assert asked == [(1000, pytest.approx(5e-5)), (1000, pytest.approx(5e-5))]
    assert [finding.check for finding in report.findings] == ["mechanism, Poisson sampling", "mechanism, full batch"]
    assert (report.epsilon_lower, report.violated) == (3.5, False)


def test_a_full_batch_claim_is_attacked_once(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, [3.0])
    run_audit(request(claims, changes={"stages.private.expected_batch_size": 1000}), silent)
    assert len(asked) == 1


def test_red_once_is_made_again_with_four_times_the_canaries(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, [4.5, 3.0, 3.0])
    report = run_audit(request(claims), silent)
    assert [canaries for canaries, _ in asked] == [1000, 4000, 1000]
    assert not report.violated
    assert [finding.repeated for finding in report.findings] == [True, False]


def test_red_twice_is_a_violation(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, [4.5, 4.2, 3.0])
    report = run_audit(request(claims), silent)
    assert report.violated
    document = report.document()
    assert (document["verdict"], document["epsilon_lower"]) == ("violated", 4.2)
    assert document["epsilon"] == pytest.approx(4.0, abs=1e-3)
    assert [audit["verdict"] for audit in document["audits"]] == ["violated", "consistent"]
    assert document["audits"][0]["n"] == 4000


def test_red_is_not_doubted_where_that_is_asked(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch, [4.5, 3.0])
    assert run_audit(request(claims, doubt_red=False), silent).violated
    assert len(asked) == 2


def test_all_three_audits_run_on_one_claim(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float]] = []
    monkeypatch.setattr(trainer, "STEPS", 8)
    small = request(claims, kinds=("mechanism", "trainer", "repeated"), changes={"epsilon": 1.0})
    report = run_audit(small, lambda name, share: heard.append((name, share)))
    assert [finding.kind for finding in report.findings] == ["mechanism", "mechanism", "trainer", "repeated"]
    assert not report.violated
    assert {name for name, share in heard if share == 1.0} >= {"trainer", "repeated runs"}


def test_a_trial_without_a_claim_is_refused_with_the_reason(claims: Any) -> None:
    nothing = {"epsilon": None, "delta": None, "clip_norm": None}
    control = claims.config("feature").changed(private_weight=0.0, **nothing)
    with pytest.raises(Refused, match="reads nothing private"):
        request(claims, config=control)
    ceiling = claims.config("dpsgd").changed(method="nonprivate", **nothing)
    with pytest.raises(Refused, match="infinite"):
        request(claims, config=ceiling)


def test_too_few_canaries_and_no_confidence_are_refused(claims: Any) -> None:
    with pytest.raises(BadInput, match="at least 1000"):
        request(claims, canaries={**CANARIES, "mechanism": 10})
    with pytest.raises(BadInput, match="confidence"):
        request(claims, confidence=1.0)
