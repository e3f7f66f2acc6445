"""Runs the audits of one trial's claim and gives the verdict: consistent or violated.

A check that refutes its claim is repeated with four times the canaries and a fresh key. Only a check that fails twice is a violation.
Each check runs at its share of the significance (Bonferroni). So the probability of calling a true claim violated is far below
1 − confidence. Canaries are synthetic and nothing private is read, so an audit charges no ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dpcore.audit.canaries import Target
from dpcore.audit.mechanism import OnProgress, audit_mechanism
from dpcore.audit.repeated import PROBLEM, audit_repeated
from dpcore.audit.trainer import audit_trainer, trainer_problem
from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import plan_privacy

AuditKind = Literal["mechanism", "trainer", "repeated"]
KINDS: tuple[AuditKind, ...] = ("mechanism", "trainer", "repeated")
DEFAULT_KINDS: tuple[AuditKind, ...] = ("mechanism", "trainer")
DEFAULT_CONFIDENCE = 1.0 - 1e-4

FULL_BATCH_STEPS = 2
MORE_AFTER_RED = 4
SMALLEST_COUNTS: dict[AuditKind, int] = {"mechanism": 1000, "trainer": 100, "repeated": 20}


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What to attack, and how hard.

    Args:
        config: a trial that makes a claim.
        runtime: its physical batch size and generator.
        kinds: the audits to run.
        canaries: observations of the mechanism audit, canaries of the trainer audit, runs of the repeated audit.
        confidence: confidence that a refuted claim is false; 1 − 1e-4 by default.
        doubt_red: whether a check that refutes its claim is repeated before it counts.
        cache_dir: stores calibrations.

    Raises:
        BadInput: too few canaries for an audit to show anything, or a confidence outside (0, 1).
        Refused: the trial makes no claim under noise.
    """

    config: TrialConfig
    runtime: RuntimeFlags
    kinds: tuple[AuditKind, ...]
    canaries: dict[AuditKind, int]
    confidence: float = DEFAULT_CONFIDENCE
    doubt_red: bool = True
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise BadInput(f"confidence must lie in (0, 1), given {self.confidence}")
        for kind in self.kinds:
            if self.canaries[kind] < SMALLEST_COUNTS[kind]:
                raise BadInput(f"the {kind} audit needs at least {SMALLEST_COUNTS[kind]} canaries or runs, given {self.canaries[kind]}")
        _refuse_without_claim(self.config)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Args:
        kind: the audit.
        check: the name of its check.
        proof: the theory behind its bound.
        epsilon: the ε of the attacked claim.
        bound: the ε that the attack refutes.
        canaries: n.
        steps: T of a run.
        repeated: whether a first try had refuted the claim.
    """

    kind: AuditKind
    check: str
    proof: str
    epsilon: float
    bound: float
    canaries: int
    steps: int
    repeated: bool

    @property
    def violated(self) -> bool:
        """Whether the attack refutes the claim."""
        return self.bound > self.epsilon

    def document(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "kind": self.kind,
            "check": self.check,
            "n": self.canaries,
            "steps": self.steps,
            "epsilon": self.epsilon,
            "bound": self.bound,
            "proof": self.proof,
            "repeated": self.repeated,
            "verdict": "violated" if self.violated else "consistent",
        }


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """All findings on one claim."""

    method: str
    epsilon: float
    delta: float
    confidence: float
    findings: tuple[Finding, ...]

    @property
    def violated(self) -> bool:
        """Whether any check refutes its claim."""
        return any(finding.violated for finding in self.findings)

    @property
    def epsilon_lower(self) -> float:
        """The largest refuted ε."""
        return max(finding.bound for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "epsilon": self.epsilon,
            "epsilon_lower": self.epsilon_lower,
            "delta": self.delta,
            "method": self.method,
            "confidence": self.confidence,
            "verdict": "violated" if self.violated else "consistent",
            "audits": [finding.document() for finding in self.findings],
        }


@dataclass(frozen=True, kw_only=True)
class _Check:
    """One attack on one claim: `attack(canaries, significance, progress)` gives the refuted ε."""

    kind: AuditKind
    name: str
    proof: str
    target: Target
    canaries: int
    attack: Callable[[int, float, OnProgress], float]


def run_audit(request: AuditRequest, progress: Callable[[str, float], None]) -> AuditReport:
    """Runs every check of the request. `progress` receives the name of a check and the share of it that is done."""
    checks = [check for kind in request.kinds for check in _checks(kind, request)]
    significance = (1.0 - request.confidence) / len(checks)
    own = _target(request.config, request)
    settle = _settled if request.doubt_red else _attempt
    return AuditReport(
        method=request.config.method,
        epsilon=own.plan.epsilon_planned,
        delta=own.plan.delta,
        confidence=request.confidence,
        findings=tuple(settle(check, significance, progress) for check in checks),
    )


def _settled(check: _Check, significance: float, progress: Callable[[str, float], None]) -> Finding:
    first = _attempt(check, significance, progress)
    if not first.violated:
        return first
    more = replace(check, canaries=MORE_AFTER_RED * check.canaries, name=f"{check.name}, again")
    return replace(_attempt(more, significance, progress), check=check.name, repeated=True)


def _attempt(check: _Check, significance: float, progress: Callable[[str, float], None]) -> Finding:
    return Finding(
        kind=check.kind,
        check=check.name,
        proof=check.proof,
        epsilon=check.target.plan.epsilon_planned,
        bound=check.attack(check.canaries, significance, lambda share: progress(check.name, share)),
        canaries=check.canaries,
        steps=check.target.plan.steps,
        repeated=False,
    )


def _checks(kind: AuditKind, request: AuditRequest) -> list[_Check]:
    builders: dict[AuditKind, Callable[[AuditRequest], list[_Check]]] = {
        "mechanism": _mechanism_checks,
        "trainer": _trainer_checks,
        "repeated": _repeated_checks,
    }
    return builders[kind](request)


def _mechanism_checks(request: AuditRequest) -> list[_Check]:
    """The claim itself, and a full-batch claim with the same ε. In the latter every canary is in every step, so a failure only there is
    not caused by sampling."""
    full = request.config.changed(
        **{"stages.private.expected_batch_size": request.config.data.nominal_examples, "stages.private.steps": FULL_BATCH_STEPS}
    )
    configs = {"mechanism, full batch": full}
    if request.config.sampling_prob < 1.0:
        configs = {"mechanism, Poisson sampling": request.config, **configs}

    def check(name: str, target: Target) -> _Check:
        def attack(canaries: int, significance: float, progress: OnProgress) -> float:
            return audit_mechanism(target, canaries=canaries, significance=significance, progress=progress)

        proof = "exact trade-off of the claim (f-DP)"
        return _Check(kind="mechanism", name=name, proof=proof, target=target, canaries=request.canaries["mechanism"], attack=attack)

    return [check(name, _target(config, request)) for name, config in configs.items()]


def _trainer_checks(request: AuditRequest) -> list[_Check]:
    problem = trainer_problem(request.config, canaries=request.canaries["trainer"])
    target = _target(problem.config(request.config), request)

    def attack(canaries: int, significance: float, progress: OnProgress) -> float:
        runs = math.ceil(canaries / problem.canaries)
        return audit_trainer(problem, target, runs=runs, significance=significance, progress=progress)

    canaries = problem.canaries * math.ceil(request.canaries["trainer"] / problem.canaries)
    proof = "one run (Steinke, Nasr, Jagielski 2023)"
    return [_Check(kind="trainer", name="trainer", proof=proof, target=target, canaries=canaries, attack=attack)]


def _repeated_checks(request: AuditRequest) -> list[_Check]:
    target = _target(PROBLEM.config(request.config), request)

    def attack(runs: int, significance: float, progress: OnProgress) -> float:
        return audit_repeated(target, runs=runs, significance=significance, progress=progress)

    proof = "Clopper-Pearson on final weights"
    return [_Check(kind="repeated", name="repeated runs", proof=proof, target=target, canaries=request.canaries["repeated"], attack=attack)]


def _target(config: TrialConfig, request: AuditRequest) -> Target:
    plan = plan_privacy(config, request.cache_dir)
    if plan is None:
        raise Refused(f"method {config.method} makes no claim under noise")
    return Target(config=config, plan=plan, runtime=request.runtime)


def _refuse_without_claim(config: TrialConfig) -> None:
    if config.spends_privacy:
        return
    reason = "releases gradients without noise: its ε is infinite" if config.traits.is_unbounded else "reads nothing private: its ε is 0"
    raise Refused(f"nothing to audit: method {config.method} {reason}, so its claim rests on no noise; give a private trial")
