"""The privacy statement of a sweep for a data-protection officer.

Each row answers a question that NIST SP 800-226, *Guidelines for Evaluating Differential Privacy Guarantees* (March 2025), asks of a
deployment. Questions are in our own words. What dpsweep cannot know, such as how the data were collected, is said to be the data owner's.

| section | what it asks about |
|---|---|
| 2, the guarantee | ε, its meaning, variants and δ, the unit of privacy, bounded or unbounded neighbours, other releases beside it |
| 3, the algorithm | mechanisms, accuracy, bias, unstructured data |
| 4, the deployment | query model, threat model, implementation and its tests, security of the raw data, exposure at their collection |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpcore.errors import DpsweepError
from sweeps.records.spec import RUN_TRIAL

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from dpcore.privacy.claim import PrivacyClaim
    from sweeps.records.results import TrialRecord
    from sweeps.records.spec import SweepSpec
    from sweeps.report.comparison import Comparison
    from sweeps.report.details.answers import EpsilonAnswer
    from sweeps.report.details.price import SweepPrice
    from sweeps.report.disclosure import PolicyDisclosure

OWNER = "for the data owner to say: "
ALMOST_SURE = 0.999
GUARANTEE, ALGORITHM, DEPLOYMENT = "The guarantee (section 2)", "The algorithm (section 3)", "The deployment (section 4)"


@dataclass(frozen=True, kw_only=True)
class WinnerClaim:
    """What the model that won at one ε promises."""

    epsilon: float
    trial_id: str
    claim: PrivacyClaim


@dataclass(frozen=True, kw_only=True)
class StatementRow:
    """One question with its answer. `part`: of SP 800-226."""

    part: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """All rows, and the claim of each winner. `missing`: why claims could not be stated here; empty where they are."""

    rows: tuple[StatementRow, ...]
    claims: tuple[WinnerClaim, ...]
    missing: str = ""


def privacy_statement(
    spec: SweepSpec,
    comparisons: Sequence[Comparison],
    *,
    price: SweepPrice,
    answers: Sequence[EpsilonAnswer],
    policy: PolicyDisclosure | None,
) -> PrivacyStatement:
    """The statement of a sweep."""
    claims, missing = _claims_or_reason(spec, comparisons, policy)
    rows = (*_guarantee(claims, price), *_algorithm(claims, answers), *_deployment(spec, claims, price))
    return PrivacyStatement(rows=rows, claims=claims, missing=missing)


def _claims_or_reason(
    spec: SweepSpec, comparisons: Sequence[Comparison], policy: PolicyDisclosure | None
) -> tuple[tuple[WinnerClaim, ...], str]:
    if spec.trial_function != RUN_TRIAL:
        return (), f"the trials of this sweep are {spec.trial_function}: they release no model, so there is nothing to claim"
    try:
        return winner_claims(spec, comparisons, policy), ""
    except DpsweepError as error:  # the datasets are elsewhere: the rest of the statement holds without them
        return (), f"the claims of the winners cannot be stated here: {error}"


def winner_claims(spec: SweepSpec, comparisons: Sequence[Comparison], policy: PolicyDisclosure | None) -> tuple[WinnerClaim, ...]:
    """The claim of each winner as it is released: under a selection, the selection's.

    Raises:
        DpsweepError: a dataset is not on this machine.
    """
    from sweeps.models.claims import claim_of_training
    from sweeps.pricing.selection import winner_claim

    def claim_of(config: TrialConfig) -> PrivacyClaim:
        claim = claim_of_training(config, None, places=spec.places, runtime=spec.runtime)
        if config.split is None:
            return claim
        own, joint = (None, None) if policy is None else (policy.of_split(config.split), policy.of_all)
        return claim.with_views(spec.space.splits_in_use, own, joint)

    def released(record: TrialRecord) -> PrivacyClaim:
        claim = winner_claim(claim_of(record.config), record, spec.space, claim_of=claim_of)
        return claim.with_earlier_attempts(record.from_step) if record.attempt else claim

    won = [(one.epsilon, one.winner) for one in comparisons if one.winner is not None]
    return tuple(WinnerClaim(epsilon=epsilon, trial_id=winner.trial_id, claim=released(winner)) for epsilon, winner in won)


def _guarantee(claims: Sequence[WinnerClaim], price: SweepPrice) -> list[StatementRow]:
    models = "; ".join(f"{one.trial_id}: {one.claim.headline()}" for one in claims) or "no model was released"
    promise = price.basis.promise
    unit = "one unit is not known" if promise is None else f"one {promise.unit}; the price is counted {promise.counted}"
    capped = next((one.claim.examples_per_unit for one in claims), 1)
    given = list(dict.fromkeys(line for one in claims for line in one.claim.public))
    missing = list(dict.fromkeys(line for one in claims for line in one.claim.not_covered))
    choice = price.lines()[0]
    return [
        StatementRow(part=GUARANTEE, question="Which ε and δ hold for one released model?", answer=models),
        StatementRow(
            part=GUARANTEE,
            question="Which ε and δ hold for everything together, the choice of settings included?",
            answer=f"{choice}; {price.pricing.accountants(price.basis)}" if price.regime.reads_private else choice,
        ),
        StatementRow(part=GUARANTEE, question="Which variant of differential privacy is it?", answer=_variant(claims)),
        StatementRow(part=GUARANTEE, question="What does this ε mean for one unit?", answer=_meanings(claims, price)),
        StatementRow(
            part=GUARANTEE,
            question="What is the unit of privacy, and how much can one unit contribute?",
            answer=f"{unit}; at most {capped} example{'s' * (capped > 1)} of a unit take part in a step, and their mean is clipped",
        ),
        StatementRow(
            part=GUARANTEE,
            question="Is a person protected as a whole?",
            answer="not by this ε: it is of one unit. Somebody who is in the data k times is protected by about k times this ε. dpsweep "
            "does not look for the same person in several units",
        ),
        StatementRow(
            part=GUARANTEE,
            question="What is released without protection, or given to an attacker as public?",
            answer="; ".join(given) or "nothing is known here beyond what the price says",
        ),
        StatementRow(
            part=GUARANTEE, question="What does the guarantee not cover?", answer="; ".join(missing) or "see the claim of each model"
        ),
        StatementRow(
            part=GUARANTEE,
            question="Is δ small against the number of people?",
            answer=f"δ = {price.delta:.3g}; the usual bound is 1 / (10 N) for N units",
        ),
    ]


def _variant(claims: Sequence[WinnerClaim]) -> str:
    accountants = ", ".join(dict.fromkeys(one.claim.accountant for one in claims if one.claim.accountant))
    counted = f", computed by {accountants}" if accountants else ""
    return f"approximate differential privacy, (ε, δ), in the central model{counted}"


def _meanings(claims: Sequence[WinnerClaim], price: SweepPrice) -> str:
    """ε of each model, and of everything where that is a promise, as what somebody can become sure of."""
    named = [(one.trial_id, one.claim.epsilon) for one in claims if one.claim.epsilon]
    if price.regime.is_promise and price.regime.reads_private:
        named.append(("everything together", price.composed_epsilon))
    told = "; ".join(f"{name}: {certainty(epsilon)}" for name, epsilon in named)
    if not told:
        return "nothing is promised here in numbers, or nothing private was read"
    return f"somebody who thinks it as likely as not that a unit is in the data, and then sees the release, can be so sure of it: {told}"


def certainty(epsilon: float) -> str:
    """The largest probability that somebody who began at one half can end with, except with a probability of about δ: e^ε / (1 + e^ε).

    >>> certainty(0.8), certainty(12.0), certainty(math.inf)
    ('69.0 %', 'above 99.9 %', 'wholly')
    """
    if math.isinf(epsilon):
        return "wholly"
    likely = 1 / (1 + math.exp(-epsilon))
    return f"{100 * likely:.1f} %" if likely < ALMOST_SURE else f"above {100 * ALMOST_SURE:.1f} %"


def _algorithm(claims: Sequence[WinnerClaim], answers: Sequence[EpsilonAnswer]) -> list[StatementRow]:
    how = list(dict.fromkeys(f"{one.claim.mechanism} {one.claim.sampling}".strip() for one in claims))
    return [
        StatementRow(
            part=ALGORITHM, question="Which mechanism adds the noise, and to what?", answer=" ".join(how) or "no private mechanism ran"
        ),
        StatementRow(
            part=ALGORITHM, question="How useful is the result, and how sure is that?", answer=" ".join(one.sentence() for one in answers)
        ),
        StatementRow(
            part=ALGORITHM,
            question="Whom does the loss of accuracy hit?",
            answer="scores per joint stand in this report; scores per group of people are not measured. Clipping and noise cost rare "
            "poses and rarely photographed groups more than others: score each with `dpsweep evaluate` on PUBLIC data of that group",
        ),
        StatementRow(
            part=ALGORITHM,
            question="Are the data unstructured, and what is a unit of them?",
            answer="yes, pictures of people: the network learns from a crop per person, and the unit above says how crops are counted "
            "together. What a crop shows of somebody else is part of that crop's unit alone",
        ),
    ]


def _deployment(spec: SweepSpec, claims: Sequence[WinnerClaim], price: SweepPrice) -> list[StatementRow]:
    random = list(dict.fromkeys(one.claim.randomness for one in claims))
    kind = "real people, protected" if price.protected else "a stand-in for protected people: every ε is as it would be"
    return [
        StatementRow(
            part=DEPLOYMENT,
            question="Who must be trusted with the raw data?",
            answer="central model: whoever runs the machines that train holds the raw pictures; everybody else sees released models and "
            "scores",
        ),
        StatementRow(
            part=DEPLOYMENT,
            question="Can others ask further questions of the data?",
            answer="not interactive: each run is planned, reserved in a ledger before it starts, and counted there across sweeps and "
            "trainings",
        ),
        StatementRow(part=DEPLOYMENT, question="Whose data are they?", answer=f"dataset {spec.space.trial['data']['private']}: {kind}"),
        StatementRow(
            part=DEPLOYMENT,
            question="Where does randomness come from, and which side channels remain?",
            answer=f"{'; '.join(random) or 'none drawn for privacy'}, from a secret key in one file of mode 0600. Remaining: "
            "run times that files and logs show, and the last bits of floating-point sums and noise",
        ),
        StatementRow(
            part=DEPLOYMENT,
            question="How was the implementation tested, and how can somebody else check it?",
            answer="tests break the code on purpose in more than a hundred places, and each break is found. `dpsweep ledger NAME --verify` "
            "checks every reservation, `dpsweep train best.yaml --replay` repeats the release bit for bit, `dpsweep audit best.yaml` tries "
            "to refute the claim",
        ),
        StatementRow(
            part=DEPLOYMENT,
            question="Who can reach the raw data and what was made from them?",
            answer=f"files of the sweep and caches of private data are for their owner alone (0600, 0700). {OWNER}who may log in there, "
            "how backups are kept, and when the data are deleted",
        ),
        StatementRow(
            part=DEPLOYMENT,
            question="How exposed were people when the data were collected?",
            answer=f"{OWNER}consent, purpose, and who saw the pictures before",
        ),
    ]
