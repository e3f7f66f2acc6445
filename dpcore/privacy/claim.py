"""What is promised, to whom, about what: the printed ε as a statement that a person can sign.

The relation of a claim is the weakest over everything that went into the weights: one stage, basis or start that read
public views makes it a *feature* claim, in which ψ(x) of every record is given to the attacker.
Torch-free.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from dpcore.config import Part, PrivacyUnit, SplitConfig, TrialConfig
from dpcore.errors import BadInput
from dpcore.privacy.disclosure import Disclosure
from dpcore.privacy.plan import PrivacyPlan

ClaimRelation = Literal["add_remove_record", "add_remove_given_public_view", "replace_record", "replace_given_public_view"]
"""How two neighbouring datasets differ, and what an attacker is given of the difference."""

_STRENGTH: tuple[ClaimRelation, ...] = (
    "replace_record",
    "add_remove_record",
    "replace_given_public_view",
    "add_remove_given_public_view",
)
"""From the stronger to the weaker statement. Runs of one selection share how neighbours differ: what is given to an attacker decides."""

_NOUNS: dict[PrivacyUnit, tuple[str, str]] = {
    "person": ("annotated person", "annotated people"),
    "image": ("image", "images"),
    "video": ("video", "videos"),
}
_PRICED_AS = {"add_remove": "add/remove", "replace": "replacement"}


class ClaimedDataset(Protocol):
    """What a claim reads of a dataset's manifest."""

    @property
    def name(self) -> str:
        """The dataset's name."""

    @property
    def role(self) -> str:
        """PUBLIC or PRIVATE."""

    @property
    def protected(self) -> bool:
        """Whether real people stand behind it."""


RUN_TIMES = (
    "how long a run takes: where the data are protected no time is logged, but the times of the files that it writes, and of artifacts and "
    "model versions in MLflow, show when each was made"
)
OTHER_SPLITS = "what the views of other splits show in addition"


class HeldViews(Part):
    """The public views that an attacker may hold of every record, and what was measured of them on PUBLIC images.

    Attributes:
        splits: of the policy, each with what it does.
        disclosure: `split/disclosure` of the split that the trial reads; None where it was not measured.
        joint_disclosure: the same for who holds the views of all splits.
        ssim: the highest that an attacker reached over the hidden pixels.
        warning: why these views nearly show the image; None where they do not.
    """

    splits: tuple[str, ...]
    disclosure: float | None
    joint_disclosure: float | None
    ssim: float | None
    warning: str | None

    def sentence(self) -> str:
        """What the views disclose, in prose."""
        if self.ssim is None:
            return " What the public views disclose was not measured."
        read = "could not be read off the originals either, so only likeness was measured"
        if self.joint_disclosure is not None:
            read = f"was read off them to {100 * self.joint_disclosure:.0f} % of what the originals gave"
        text = f" On PUBLIC images under these views, after our best attack, the pose {read}; SSIM of hidden pixels: {self.ssim:.2f}."
        return text if self.warning is None else f"{text} Warning: {self.warning}."


class PrivacyClaim(Part):
    """The guarantee of one trial, with its conditions.

    `labels` says whether labels are among what is public; where no public view was read they never are.

    | epsilon | meaning |
    |---|---|
    | a number > 0 | (ε, δ)-DP under `relation` |
    | 0 | nothing private was read: the result is a function of what `public` lists |
    | None | no guarantee; `no_guarantee` says why |
    """

    unit: PrivacyUnit
    examples_per_unit: int = 1
    relation: ClaimRelation
    labels: Literal["public", "private"]
    epsilon: float | None
    delta: float | None
    accountant: str
    sampling: str
    mechanism: str
    randomness: str
    public: tuple[str, ...]
    not_covered: tuple[str, ...]
    stand_in: bool
    no_guarantee: str | None = None
    views: HeldViews | None = None

    def with_views(self, policy: Sequence[SplitConfig], own: Disclosure | None, joint: Disclosure | None) -> PrivacyClaim:
        """This feature claim in a sweep whose policy admits several splits: an attacker may hold the views under all of them.

        Args:
            policy: every split that a trial of the sweep can have.
            own: what the trial's own split discloses; None where it was not measured.
            joint: what all of them disclose together; the same as `own` where there is one.
        """
        named = tuple(_described(split) for split in policy)
        held = HeldViews(
            splits=named,
            disclosure=None if own is None else own.disclosure,
            joint_disclosure=None if joint is None else joint.disclosure,
            ssim=None if joint is None else joint.hidden_ssim,
            warning=next((one.warning for one in (joint, own) if one is not None and one.warning is not None), None),
        )
        given = " ".join(self.public)
        others = tuple(f"the public view of every crop under split {name}" for name in named if f"split {name}" not in given)
        return self.model_copy(
            update={
                "public": (*self.public, *others),
                "not_covered": tuple(line for line in self.not_covered if line != OTHER_SPLITS),
                "views": held,
            }
        )

    def with_earlier_attempts(self, from_step: int) -> PrivacyClaim:
        """This claim of a run whose last attempt went on from `from_step` of an earlier one, which had drawn other noise from there on."""
        more = (
            f"what earlier attempts of this run reported (the last one went on from step {from_step}); the ledger holds what they reserved"
        )
        return self.model_copy(update={"not_covered": (*self.not_covered, more)})

    def headline(self) -> str:
        """The shortest honest form, for tags and tables."""
        if self.epsilon is None:
            return "no guarantee"
        if self.epsilon == 0.0:
            return "ε = 0: nothing private was read"
        return f"ε = {self.epsilon:.4g} at δ = {self.delta:.3g} per {self.unit}, {self.relation.replace('_', ' ')}"

    def paragraph(self) -> str:
        """The claim in prose."""
        if self.no_guarantee is not None:
            return f"No privacy guarantee: {self.no_guarantee}" + self._stand_in_line()
        record = self._record()
        change = "replaced by another" if self.relation.startswith("replace") else "added or removed"
        if self.epsilon == 0.0:
            text = f"Nothing about {record} was read (ε = 0): the released weights are a function of public inputs alone."
        else:
            text = (
                f"The released weights are (ε, δ)-differentially private with ε = {self.epsilon:.4g} and δ = {self.delta:.3g} for {record},"
                f" {change}."
                f" {self.mechanism} {self.sampling} Accounted by {self.accountant}. Private randomness: {self.randomness}."
            )
        given = f" Given to an attacker as public: {'; '.join(self.public)}." if self.public else ""
        shown = "" if self.views is None else self.views.sentence()
        return f"{text}{given}{shown} Not covered: {'; '.join(self.not_covered)}." + self._stand_in_line()

    def _record(self) -> str:
        """What of a unit the guarantee hides."""
        noun = _NOUNS[self.unit][0]
        if self.relation.endswith("_record"):
            return f"one {noun} with its labels"
        return f"the private part of one {noun}" + (" and its labels" if self.labels == "private" else "")

    def within_selection(self, *, epsilon: float, law: str, candidates: Sequence[PrivacyClaim]) -> PrivacyClaim:
        """The claim of a run that was released as the best of a secret number of such runs.

        Guarantees: it is the weakest over all candidates. Which run wins depends on every one of them: whoever sees that a projected
        run won has learned something from the runs that read public views, which were given each record's view and labels.

        Args:
            epsilon: of the whole selection, at this claim's δ.
            law: of the number of runs, in words.
            candidates: the claims of every kind of run that the space admits.
        """
        every = (self, *candidates)
        best = f"The run is the best of a secret number of such runs with independently drawn settings ({law}); the others are sealed."
        missing = (
            *_joined(one.not_covered for one in every),
            "how long the sweep took, which such times show too and which hints at the number of runs",
        )
        weakest = max((one.relation for one in every), key=_STRENGTH.index)
        return self.model_copy(
            update={
                "epsilon": epsilon,
                "relation": weakest,
                "labels": "public" if any(one.labels == "public" for one in every) else self.labels,
                "public": _joined(one.public for one in every),
                "accountant": "RDP (dp-accounting, repeat and select)",
                "mechanism": f"{self.mechanism} {best}",
                "not_covered": (*missing, "what a Ray that others use counts of its tasks"),
                "views": next((one.views for one in every if one.views is not None), None),
            }
        )

    def _stand_in_line(self) -> str:
        return " Stand-in data: ε as it would be." if self.stand_in else ""


def claim_of(
    config: TrialConfig,
    plan: PrivacyPlan | None,
    manifests: Mapping[str, ClaimedDataset],
    *,
    randomness: str = "Philox 4x64-10, 128-bit key",
) -> PrivacyClaim:
    """The claim of a trial that runs as planned.

    Args:
        config: The trial.
        plan: Its calibrated plan; None exactly for trials that spend nothing or have no guarantee.
        manifests: The datasets in use by their part: private, public, validation.
        randomness: `PrivateStreams.generator_name` of the run.

    Raises:
        BadInput: plan and config disagree, or a private method lacks the private dataset's manifest.
    """
    if plan is not None and plan.relation != config.relation:
        raise BadInput(f"the plan is priced for relation {plan.relation}, the config claims {config.relation}: plan this config")
    if (plan is not None) != config.spends_privacy:
        raise BadInput(f"method {config.method} {'needs' if config.spends_privacy else 'has no'} privacy plan to make a claim from")
    part = "proxy" if config.is_rehearsal else "private"
    private = manifests.get(part)
    if private is None:
        raise BadInput(f"a claim names the dataset in the private part's place: give manifests['{part}']")
    return PrivacyClaim(
        unit=config.privacy_unit,
        examples_per_unit=config.examples_per_unit,
        relation=_relation(config),
        labels="private" if config.split is None else config.labels,
        epsilon=None if config.traits.is_unbounded and not config.is_rehearsal else 0.0 if plan is None else plan.epsilon_planned,
        delta=None if plan is None else plan.delta,
        accountant="none" if plan is None else f"PLD (dp-accounting, {_PRICED_AS[plan.relation]}, interval 1e-4)",
        sampling="" if plan is None else _sampling(config, plan),
        mechanism="" if plan is None else _mechanism(config, plan),
        randomness=randomness if plan is not None else "none drawn for privacy",
        public=_public_inputs(config, manifests),
        not_covered=_not_covered(config, manifests),
        stand_in=not private.protected and not config.is_rehearsal,
        no_guarantee=_no_guarantee(config, private),
    )


def _relation(config: TrialConfig) -> ClaimRelation:
    if config.relation == "replace":
        return "replace_record" if config.split is None else "replace_given_public_view"
    return "add_remove_record" if config.split is None else "add_remove_given_public_view"


def _sampling(config: TrialConfig, plan: PrivacyPlan) -> str:
    size, count = config.stages.private.expected_batch_size, config.data.nominal_examples
    one, many = _NOUNS[config.privacy_unit]
    cap = "one crop" if config.examples_per_unit == 1 else f"{config.examples_per_unit} crops"
    return (
        f"Each step draws every {one} independently with probability {plan.sampling_prob:.6g} ({size} of a nominal {count} {many});"
        f" of a drawn {one} at most {cap} take part, and what it contributes is their mean."
    )


def _mechanism(config: TrialConfig, plan: PrivacyPlan) -> str:
    return (
        f"{plan.steps} releases of a sum in which one {_NOUNS[config.privacy_unit][0]} contributes at most an L2 norm of"
        f" {config.clip_norm:g}, each under Gaussian noise of {plan.noise_multiplier:.6g} times that."
    )


def _public_inputs(config: TrialConfig, manifests: Mapping[str, ClaimedDataset]) -> tuple[str, ...]:
    listed = [f"dataset {m.name} ({part})" for part, m in sorted(manifests.items()) if part != "private" and m.role == "PUBLIC"]
    if config.model.weights is not None:
        listed.append(f"the initial weights {config.model.weights}")
    many = _NOUNS[config.privacy_unit][1]
    if config.data.canonical_rotation is not None:
        read = "the record's own pixels" if config.split is None else "the record's public view alone"
        listed.append(f"the detector {config.data.canonical_rotation}, which turns each private crop upright by {read}")
    listed.append(f"the config, its seed and the nominal number of {many}")
    if config.is_rehearsal:
        listed.append(f"everything that was read: dataset {config.data.proxy} stood in the place of {config.data.private}")
    elif config.split is not None:
        listed += [
            f"which {many} exist, how many, and the number of crops of each",
            f"the public view ψ(x) of every crop: split {_described(config.split)}",
            _public_labels(config, manifests),
        ]
    return tuple(listed)


def _described(split: SplitConfig) -> str:
    return f"{split.name} ({split.transform} on region {split.region})"


def _public_labels(config: TrialConfig, manifests: Mapping[str, ClaimedDataset]) -> str:
    if config.labels == "public":
        return "keypoints, visibility, crop box and head size of every crop (labels: public)"
    source = f" of {manifests['public'].name}" if "public" in manifests else ""
    return (
        f"the frame of every crop, which no label placed, and the keypoints that a public model{source} reads off its view: these"
        " pseudo-labels stood in wherever public views were trained on (labels: private)"
    )


def _not_covered(config: TrialConfig, manifests: Mapping[str, ClaimedDataset]) -> tuple[str, ...]:
    missing = [f"what the same person shows in other {'videos' if config.privacy_unit == 'video' else 'images'}"]
    if config.privacy_unit == "person":
        missing += ["the pixels of that person in a neighbour's crop", "the same person under another annotation"]
    missing.append("what other trials of the sweep release: see the sweep's price")
    if config.split is not None and not config.is_rehearsal:
        missing += ["what ψ itself shows of an image", OTHER_SPLITS]
        if config.labels == "private":
            missing.append("labels that a run with labels: public on the same data has given away")
    if config.spends_privacy:
        missing += [RUN_TIMES, "the last bits of floating-point sums and noise"]
    validation = manifests.get("validation")
    if validation is not None and validation.role == "PUBLIC":
        missing.append(f"the validation images of {validation.name}, which were declared public")
    return tuple(missing)


def _no_guarantee(config: TrialConfig, private: ClaimedDataset) -> str | None:
    if not config.traits.is_unbounded or config.is_rehearsal:
        return None
    return f"method {config.method} releases gradients of {private.name} without clipping and without noise; its ε is infinite."


def _joined(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All lines in their order, each once."""
    return tuple(dict.fromkeys(itertools.chain.from_iterable(lists)))
