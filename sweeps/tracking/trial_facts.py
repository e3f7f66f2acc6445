"""What a tracker needs to know about a trial beyond its config: its datasets and its claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dpcore.config import Places, RuntimeFlags, TrialConfig

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.privacy.claim import PrivacyClaim
    from dpcore.privacy.plan import PrivacyPlan


class TrialFacts(Protocol):
    """Answers about a trial's data and claim."""

    def manifests(self, config: TrialConfig) -> dict[str, Manifest]:
        """Manifest by its part of the config: private, public, validation."""

    def claim(self, config: TrialConfig, plan: PrivacyPlan | None) -> PrivacyClaim:
        """The claim of a run under the plan that was reserved for it; None where nothing was."""


class CatalogFacts:
    """Answers from the data catalog and the accountant. Each dataset is opened once.

    Args:
        places: Folders of the datasets.
        runtime: Runtime of the trials. A claim names its random generator.
    """

    def __init__(self, places: Places, runtime: RuntimeFlags) -> None:
        self._places = places
        self._runtime = runtime
        self._opened: dict[str, Manifest] = {}

    def manifests(self, config: TrialConfig) -> dict[str, Manifest]:
        """Manifest by its part of the config: private (of a rehearsal: proxy), public, validation."""
        from dpcore.data.catalog import open_dataset

        part = "proxy" if config.is_rehearsal else "private"
        names = {part: config.data.in_private_place, "public": config.data.public, "validation": config.data.validation}
        for name in names.values():
            if name not in self._opened:
                self._opened[name] = open_dataset(name, self._places).manifest
        return {part: self._opened[name] for part, name in names.items()}

    def claim(self, config: TrialConfig, plan: PrivacyPlan | None) -> PrivacyClaim:
        """The claim of a run under the plan that was reserved for it; None where nothing was."""
        from dpcore.privacy.claim import claim_of
        from dpcore.privacy.randomness import generator_name

        return claim_of(config, plan, self.manifests(config), randomness=generator_name(secure=self._runtime.secure_rng))
