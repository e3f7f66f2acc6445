"""What the safe pass did to a network: for people, for model.json, and for building the same modules again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SafetyReport:
    """Names of the modules that were changed, by what was done to them.

    Attributes:
        folded: BatchNorm → the layer that took it in; its statistics and its gain are in that layer's weights now.
        frozen_statistics: BatchNorms that became a fixed shift and scale, with a gain and a bias of their own.
        group_norms: BatchNorms that became GroupNorms, whose outputs are other ones.
        not_in_place: modules that wrote into their input.
        not_random: dropout and drop path, set to 0.
        unused: parameters that the output does not depend on. They never train.
        tied: second names of parameters that two modules share.
        notes: anything else, as whole sentences.
    """

    folded: Mapping[str, str] = field(default_factory=dict)
    frozen_statistics: tuple[str, ...] = ()
    group_norms: tuple[str, ...] = ()
    not_in_place: tuple[str, ...] = ()
    not_random: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One sentence for each kind of change; none where nothing was changed."""
        counted = (
            (self.folded, "BatchNorm folded into the layer before it"),
            (self.frozen_statistics, "BatchNorm with frozen statistics; gain and bias stay"),
            (self.group_norms, "BatchNorm replaced by GroupNorm; outputs differ from the original's"),
            (self.not_in_place, "no longer in place"),
            (self.not_random, "dropout or drop path set to 0"),
            (self.unused, "not used by the output, stays fixed"),
            (self.tied, "shares its weights with another layer"),
        )
        return [f"{what}: {_few(names)}" for names, what in counted if names] + list(self.notes)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "folded": dict(self.folded),
            "frozen_statistics": list(self.frozen_statistics),
            "group_norms": list(self.group_norms),
            "not_in_place": list(self.not_in_place),
            "not_random": list(self.not_random),
            "unused": list(self.unused),
            "tied": list(self.tied),
            "notes": list(self.notes),
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> SafetyReport:
        """From what `document` gave."""
        names = {key: tuple(value) for key, value in document.items() if key != "folded"}
        return cls(folded=dict(document["folded"]), **names)


def _few(names: Sequence[str] | Mapping[str, str]) -> str:
    shown = list(names)
    return f"{len(shown)} ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})"
