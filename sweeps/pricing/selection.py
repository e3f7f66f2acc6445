"""Private selection: a secret number of trials per ε. Only the best one is released.

The price (Papernot and Steinke 2022, arXiv:2110.03620, Theorems 2 and 6; or `dpcore.privacy.selection`) needs five conditions:

- The number of trials is drawn from the stated law.
- Settings are independent draws.
- A failed trial counts as the lowest score and is not drawn again.
- No trial is stopped because of another one.
- Only the winner is seen.

So number, settings and names of the trials come from a secret stream of the sweep key. What a resume needs lies in a sealed folder of
mode 0700 in the state directory: a journal of mode 0600, and the trials' checkpoints. The part of an ε is deleted once its winner is
released.

A resume draws the same numbers and settings again from the key, so the journal holds only the ends of trials. A trial without an end is
handed out again and replays from its checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.durable import OWNER_ONLY, append_lines, cut_half_line, replace_file
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.train.reports import EPSILON_SPENT
from search_spaces.space import Choice, Draw, SelectionLaw, SpaceFile, value_at
from sweeps.ledger.charges import Compose, SelectionTerms
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.records.trial_id import TrialId, epsilon_name

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from dpcore.privacy.claim import PrivacyClaim
    from dpcore.privacy.randomness import RandomStream, SweepKey
    from sweeps.records.spec import SweepSpec

JOURNAL_FILE = "journal.jsonl"
REDRAWS = 50
NAME_BITS = 40
_SEED_NUMBERS = 8


def draw_count(law: SelectionLaw, uniform: float) -> int:
    """The number of trials for a uniform draw in [0, 1): the smallest k with P[K ≤ k] > uniform.

    | law | P[K = k] |
    |---|---|
    | shape η > 0 | (1−γ)^k / (γ^−η − 1) · Π_{l<k} (l+η)/(l+1), k ≥ 1 |
    | shape 0 | (1−γ)^k / (k · ln 1/γ), k ≥ 1 |
    | inf | Poisson: e^−m m^k / k!, k ≥ 0 |
    """
    if law.mean_trials == 1.0 and not math.isinf(law.shape_number):
        return 1
    count, weight, ratio = _first_weight(law)
    below = weight
    while below <= uniform and below + weight > below:  # rounding may end the sum just below 1
        weight *= ratio(count)
        count += 1
        below += weight
    return count


def _first_weight(law: SelectionLaw) -> tuple[int, float, Callable[[int], float]]:
    """The smallest number of trials, its probability, and P[k + 1] / P[k]."""
    mean, shape = law.mean_trials, law.shape_number
    if math.isinf(shape):
        return 0, math.exp(-mean), lambda k: mean / (k + 1)
    from dpcore.privacy.selection import gamma_of

    gamma = gamma_of(mean, shape)
    first = (1 - gamma) / -math.log(gamma) if shape == 0 else (1 - gamma) * shape / math.expm1(-shape * math.log(gamma))
    return 1, first, lambda k: (1 - gamma) * (k + shape) / (k + 1)


class Selection:
    """The selections of one sweep, one per ε. It knows which trials to run and how they ended. The schedule decides when to run them."""

    def __init__(self, spec: SweepSpec, key: SweepKey) -> None:
        """Opens the sealed folder.

        Raises:
            BadInput: the space has no law of selection.
        """
        if spec.space.sweep.selection is None:
            raise BadInput("a selection needs sweep.selection: the law of the number of trials")
        self.law = spec.space.sweep.selection
        self._spec = spec
        self._key = key
        self._folder = spec.selection_dir
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self._folder, 0o700)
        cut_half_line(self._journal)

    @property
    def terms(self) -> SelectionTerms:
        """The terms of the selection, as the ledger stores them."""
        return terms_of(self.law)

    def count(self, epsilon: float) -> int:
        """The secret number of trials at `epsilon`."""
        return draw_count(self.law, float(self._stream(epsilon, "count", 0).uniform(1)[0]))

    def candidate(self, epsilon: float, number: int) -> TrialRecord:
        """The `number`-th trial of an ε. Its name does not reveal its number.

        A draw that TrialConfig or a constraint refuses is drawn again. Both judge the settings of one draw alone and are fixed before
        the sweep, so the candidates stay independent draws of one law: that of the space, restricted to what is admitted.

        Raises:
            BadInput: 50 draws in a row were refused by TrialConfig or the constraints; the message is the last rule.
        """
        bits = self._stream(epsilon, "draw", number).uniform(_SEED_NUMBERS)
        generator, rule = random.Random(bits.tobytes()), ""
        space = self._spec.space
        seed = {} if value_at(space.trial, "seed") is not None else {"seed": self._spec.seed}
        name = f"{int(self._stream(epsilon, 'name', number).uniform(1)[0] * 2**NAME_BITS):010x}"
        for _ in range(REDRAWS):
            try:
                config = space.trial_config(epsilon, space.draw(epsilon, generator), overrides=seed)
            except BadInput as refusal:
                rule = str(refusal)
                continue
            return TrialRecord(
                trial_id=str(TrialId.search(epsilon, name)),
                role="search",
                number=0,
                epsilon=epsilon,
                config=config,
                metric=self._spec.metric,
            )
        raise BadInput(f"search at epsilon {epsilon_name(epsilon)}: {REDRAWS} draws in a row were refused, the last because: {rule}")

    def folder(self, trial_id: str) -> Path:
        """The folder of a trial's checkpoints until the selection of its ε ends."""
        return self._folder / "checkpoints" / trial_id

    def write_end(self, record: TrialRecord) -> None:
        """Stores how a trial ended."""
        known = {name: getattr(record, name) for name in ("trial_id", "epsilon", "state", "seconds", "error", "fulfilled")}
        line = json.dumps({**known, "curve": [asdict(point) for point in record.curve]})  # of a diverged trial it may hold NaN
        append_lines(self._journal, [line], mode=OWNER_ONLY)

    def ended(self, epsilon: float) -> Iterator[TrialRecord]:
        """The ended trials of an ε, as an earlier driver stored them."""
        ends = {line["trial_id"]: line for line in self._read() if line["epsilon"] == epsilon}
        for number in range(self.count(epsilon)):
            record = self.candidate(epsilon, number)
            end = ends.get(record.trial_id)
            if end is None:
                continue
            for point in end["curve"]:
                record = record.with_point(CurvePoint(**point))
            yield replace(record, state=end["state"], seconds=end["seconds"], error=end["error"], fulfilled=end.get("fulfilled", True))

    def publish(self, winner: TrialRecord) -> None:
        """Moves the winner's folder to the other trials. Doing it again after a crash changes nothing.

        Its documents then say what the winner spent as it is released.
        """
        source, target = self.folder(winner.trial_id), self._spec.checkpoint_dir(winner.trial_id)
        if source.is_dir() and not target.exists():
            say_spent(source, winner.epsilon_spent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)

    def forget(self, epsilon: float) -> None:
        """Deletes the sealed files of an ε whose selection has ended, and finally the folder."""
        kept = [line for line in self._read() if line["epsilon"] != epsilon]
        checkpoints = self._folder / "checkpoints"
        for folder in checkpoints.iterdir() if checkpoints.is_dir() else ():
            if TrialId.parse(folder.name).epsilon == epsilon:
                shutil.rmtree(folder)
        replace_file(self._journal, "".join(json.dumps(line) + "\n" for line in kept).encode(), mode=OWNER_ONLY)

    def close(self) -> None:
        """Deletes the sealed folder, because nothing can be resumed."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _journal(self) -> Path:
        return self._folder / JOURNAL_FILE

    def _read(self) -> list[dict[str, Any]]:
        if not self._journal.is_file():
            return []
        lines = self._journal.read_text(encoding="utf-8").splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except ValueError as error:
            raise Corrupt(
                f"{self._journal} cannot be read ({error}): the selection cannot be finished; start a sweep with another name"
            ) from None

    def _stream(self, epsilon: float, name: str, number: int) -> RandomStream:
        from dpcore.privacy.randomness import PrivateStreams

        return PrivateStreams(key=self._key, trial_id=str(TrialId.selection(epsilon)), context=self._spec.name).stream(name, number)


def say_spent(trial: Path, epsilon: float | None) -> None:
    """Sets the spent ε in the documents of a trial's folder, where it stands there."""
    for path in (trial / "result.json", trial / "model" / "model.json"):
        if not path.is_file():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        said = document.get("meta", document)
        if "epsilon_spent" in said:
            said["epsilon_spent"] = epsilon
        if EPSILON_SPENT in said.get("metrics", {}):
            said["metrics"][EPSILON_SPENT] = epsilon
        replace_file(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


STRUCTURE = ("method", "split", "start", "labels", "subspace.source", "model.backbone", "model.weights")
"""What of a draw decides what its claim says beside the numbers."""


def candidate_configs(space: SpaceFile) -> tuple[TrialConfig, ...]:
    """One admissible config of every kind that a draw of the sweep can be, at any ε.

    An attacker holds the winners of all ε, and the views that any trial may read: so the kinds of all ε count. Constraints are left
    out of account: a kind that they make rare is a candidate too, and 50 draws might miss it.
    """
    space = space.unconstrained
    found: dict[str, TrialConfig] = {}
    for epsilon in space.sweep.epsilons:
        choices = {path: p.choice for path, p in space.parameters_at(epsilon).items() if path in STRUCTURE and isinstance(p, Choice)}
        for values in itertools.product(*choices.values()):
            config = _admissible(space, epsilon, dict(zip(choices, values, strict=True)))
            if config is not None:
                found.setdefault(config.fingerprint(), config)
    return tuple(found.values())


def _admissible(space: SpaceFile, epsilon: float, forced: Draw) -> TrialConfig | None:
    """A draw with these values, where TrialConfig takes one; those whose parameter is not active there fall away."""
    generator = random.Random(0)
    for _ in range(REDRAWS):
        try:
            return space.trial_config(epsilon, space.draw(epsilon, generator, forced=forced))
        except BadInput:
            continue
    return None


def winner_claim(
    claim: PrivacyClaim, record: TrialRecord, space: SpaceFile, *, claim_of: Callable[[TrialConfig], PrivacyClaim]
) -> PrivacyClaim:
    """The claim of a trial as a selection makes it. The winner carries the selection's claim, every other trial its own.

    Args:
        claim: of the trial by itself.
        record: with its plan.
        space: says whether there is a selection, and which other runs could have won.
        claim_of: the claim of another config by itself.
    """
    law, epsilon = space.sweep.selection, epsilon_of_selection(record, space)
    if law is None or epsilon is None:
        return claim
    candidates = [claim_of(config) for config in candidate_configs(space)]
    return claim.within_selection(epsilon=epsilon, law=law.text(), candidates=candidates)


def terms_of(law: SelectionLaw) -> SelectionTerms:
    """A law as the ledger stores it."""
    return SelectionTerms(mean_trials=law.mean_trials, shape=law.shape_number, accountant=law.accountant)


def epsilon_of_selection(record: TrialRecord, space: SpaceFile, compose: Compose | None = None) -> float | None:
    """ε, at its δ, of the whole selection behind a trial of the search: what the ledger, the tables and the claim of a winner say.

    None where there is no selection, or where its trials spend nothing.

    Args:
        record: one trial; all of a selection spend alike.
        space: says whether there is a selection, and its law.
        compose: the accountant's composition; None: dp-accounting's.
    """
    law, run, delta = space.sweep.selection, record.spending, record.config.delta
    if law is None or record.role != "search" or run is None or delta is None:
        return None
    from dpcore.privacy.composition import price

    return (compose or price)([(terms_of(law).charge(run), 1)], delta)


def as_released(winner: TrialRecord, epsilon: float | None) -> TrialRecord:
    """A winner with what it spent as it is released: what its whole selection spent, at each of its points."""
    if epsilon is None:
        return winner
    curve = tuple(replace(point, metrics={**point.metrics, EPSILON_SPENT: epsilon}) for point in winner.curve)
    return replace(winner, epsilon_spent=epsilon, curve=curve)


def with_releases(results: SweepResults, space: SpaceFile) -> SweepResults:
    """Results in which every winner of a selection says what its selection spent. Tables of 0.1.0 said what the single run did."""
    if space.sweep.selection is None:
        return results
    return replace(results, records=tuple(as_released(one, epsilon_of_selection(one, space)) for one in results.records))


def check_key(key_lost: bool, spec: SweepSpec) -> None:
    """Refuses to continue a selection whose key is lost.

    Raises:
        Refused: number and settings of its trials depend on the key.
    """
    if key_lost and spec.space.sweep.regime.is_selection:
        raise Refused(
            f"the sweep key of {spec.name} is lost, and with it the number of trials of the selection. The selection cannot be finished. "
            "What it reserved stays charged; start a sweep with another --name"
        )
