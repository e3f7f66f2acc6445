"""The records of a running sweep, with counts that the schedule needs at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sweeps.records.results import Role, TrialRecord, best_of

TrialGroup = tuple[Role, float | None]


class Roster:
    """Records by trial id, in the order of hand-out. A record that was replaced by another trial stays in it but no longer counts."""

    def __init__(self) -> None:
        self._records: dict[str, TrialRecord] = {}
        self._aside: set[str] = set()
        self._of_group: dict[TrialGroup, dict[str, None]] = {}
        self._ended: Counter[TrialGroup] = Counter()
        self._best: dict[tuple[float, bool], TrialRecord | None] = {}

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._records

    def __getitem__(self, trial_id: str) -> TrialRecord:
        return self._records[trial_id]

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    @property
    def finished(self) -> int:
        """How many counting records have ended."""
        return sum(self._ended.values())

    def put(self, record: TrialRecord) -> None:
        """Adds a record or replaces the one of its id."""
        before = self._records.get(record.trial_id)
        self._records[record.trial_id] = record
        if record.trial_id in self._aside:
            return
        group = record.role, record.epsilon
        self._of_group.setdefault(group, {})[record.trial_id] = None
        self._ended[group] += record.is_finished - (before is not None and before.is_finished)
        self._forget_best(record)

    def set_aside(self, trial_id: str) -> None:
        """Marks a trial as replaced by another one."""
        record = self._records[trial_id]
        self._aside.add(trial_id)
        group = record.role, record.epsilon
        del self._of_group[group][trial_id]
        self._ended[group] -= record.is_finished
        self._forget_best(record)

    def is_aside(self, trial_id: str) -> bool:
        """Whether another trial took its place."""
        return trial_id in self._aside

    def drawn(self, epsilon: float) -> int:
        """How many trials were drawn at an ε, including replaced ones."""
        return self.counted("search", epsilon) + sum(
            self._records[name].role == "search" and self._records[name].epsilon == epsilon for name in self._aside
        )

    def searched(self, epsilon: float) -> list[TrialRecord]:
        """The search trials at an ε that count."""
        return [self._records[name] for name in self._of_group.get(("search", epsilon), {})]

    def counted(self, role: Role, epsilon: float | None) -> int:
        """How many records of a role count at an ε."""
        return len(self._of_group.get((role, epsilon), ()))

    def all_ended(self, epsilon: float) -> bool:
        """Whether every search trial at an ε that counts has ended."""
        return self._ended["search", epsilon] == self.counted("search", epsilon)

    def best(self, epsilon: float, *, feature_only: bool = False) -> TrialRecord | None:
        """The best search trial at an ε that counts, see `best_of`."""
        wanted = (epsilon, feature_only)
        if wanted not in self._best:
            names = self._of_group.get(("search", epsilon), {})
            self._best[wanted] = best_of((self._records[name] for name in names), feature_only=feature_only)
        return self._best[wanted]

    def bests(self, epsilon: float) -> dict[str, TrialRecord]:
        """The best search trial of each method at an ε that counts, of methods that add noise."""
        found: dict[str, TrialRecord] = {}
        searched = [record for record in self.searched(epsilon) if record.config.adds_noise]
        for method in dict.fromkeys(record.config.method for record in searched):
            best = best_of(record for record in searched if record.config.method == method)
            if best is not None:
                found[method] = best
        return found

    def _forget_best(self, record: TrialRecord) -> None:
        if record.role == "search" and record.epsilon is not None and record.is_finished:
            for feature_only in (True, False):
                self._best.pop((record.epsilon, feature_only), None)
