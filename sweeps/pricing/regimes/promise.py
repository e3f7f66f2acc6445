"""To whom a sweep's price is a promise: its unit, its neighbouring datasets, and what of the private data it gives away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpcore.config import TrialConfig

if TYPE_CHECKING:
    from search_spaces.space import SpaceFile

_CHANGES = {"add_remove": "added or removed", "replace": "replaced by another"}


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What makes a number a statement about people.

    Attributes:
        unit: person, image or video. relation: how two neighbouring datasets differ. labels: the rule of the feature methods.
        views: each split that a trial may read, with what it does; none where no trial reads views.
    """

    unit: str
    relation: str
    labels: str
    views: tuple[str, ...] = ()

    @property
    def counted(self) -> str:
        """Per what, against which change."""
        return f"per {self.unit}, {_CHANGES[self.relation]}"

    def text(self) -> str:
        """After a number: per what, against which change, and what is public."""
        given = [f"the views of every {self.unit} under {', '.join(self.views)}"] if self.views else []
        if given and self.labels == "public":
            given.append("keypoints, visibility, boxes and head sizes")
        return f"{self.counted}; public: {' and '.join(given) or f'nothing of the {self.unit}'}"


def promise_of(space: SpaceFile) -> Promise:
    """The promise of a sweep. What it names is fixed per sweep and never searched, but for the splits: every one counts."""
    from search_spaces.space import value_at

    def fixed(name: str) -> Any:
        value = value_at(space.trial, name)
        return TrialConfig.model_fields[name].default if value is None else value

    views = tuple(f"{split.name} ({split.transform} on region {split.region})" for split in space.splits_in_use)
    return Promise(unit=fixed("privacy_unit"), relation=fixed("relation"), labels=fixed("labels"), views=views)
