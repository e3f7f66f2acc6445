"""What a sweep took from an earlier one, as its spec keeps it."""

from __future__ import annotations

from dpcore.config import Part
from search_spaces.space import Draw


class WarmStart(Part):
    """What a sweep takes from an earlier one; fixed when it begins, so that a resume does not need that sweep any more.

    Attributes:
        sweeps: the earlier one and, after it, those that it was itself begun with.
        is_private: whether choosing the settings read private data.
        draws: ε of the new sweep → what its study tries first.
    """

    sweeps: tuple[str, ...]
    is_private: bool
    draws: dict[float, tuple[Draw, ...]]

    def text(self, name: str) -> str:
        """What the price of the sweep `name` does not hold."""
        earlier = ", ".join(self.sweeps)
        if not self.is_private:
            return f"begun with settings of {earlier}: chosen on PUBLIC data alone, at no cost"
        return (
            f"begun with settings that {earlier} chose on private results: the price of {name} is that of its own trials and does not hold "
            f"what choosing those cost; the ledger holds both (dpsweep ledger {name})"
        )
