"""What a tracker needs to know about a trial beyond its config: its datasets and its claim."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dpcore.config import Places, RuntimeFlags, TrialConfig

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.data.shards import ShardSet
    from dpcore.privacy.claim import PrivacyClaim
    from dpcore.privacy.plan import PrivacyPlan


DIGEST_LENGTH = 36
"""Characters that MLflow keeps of a digest."""


@dataclass(frozen=True, kw_only=True)
class TrackedDataset:
    """A dataset as a tracker needs it.

    Attributes:
        identity: 64 hex digits that may leave. Of protected data it is an HMAC under the key of the dataset: a plain digest would be a
            membership test.
    """

    manifest: Manifest
    identity: str

    @classmethod
    def of(cls, shards: ShardSet) -> TrackedDataset:
        """The facts of an open dataset."""
        return cls(manifest=shards.manifest, identity=shards.identity)

    @property
    def protected(self) -> bool:
        """Whether it holds real people that the mechanism hides."""
        return self.manifest.protected

    def as_input(self, part: str) -> dict[str, str]:
        """The dataset as MLflow shows it. How many people a protected dataset has is not told: a step's divisor is nominal too.

        Args:
            part: of the config: private, proxy, public or validation.
        """
        own = self.manifest
        source = {"name": own.name, "role": own.role, "protected": own.protected, "crop_px": [own.height_px, own.width_px]}
        profile = {} if own.protected else {"num_rows": own.count}
        return {
            "context": part,
            "name": own.name,
            "digest": self.identity[:DIGEST_LENGTH],
            "source": json.dumps(source),
            "profile": json.dumps(profile),
        }


class TrialFacts(Protocol):
    """Answers about a trial's data and claim."""

    def datasets(self, config: TrialConfig) -> dict[str, TrackedDataset]:
        """Datasets by their part of the config: private, public, validation."""

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
        self._opened: dict[str, TrackedDataset] = {}

    def datasets(self, config: TrialConfig) -> dict[str, TrackedDataset]:
        """Datasets by their part of the config: private (of a rehearsal: proxy), public, validation."""
        from dpcore.data.catalog import open_dataset

        part = "proxy" if config.is_rehearsal else "private"
        names = {part: config.data.in_private_place, "public": config.data.public, "validation": config.data.validation}
        for name in names.values():
            if name not in self._opened:
                self._opened[name] = TrackedDataset.of(open_dataset(name, self._places))
        return {part: self._opened[name] for part, name in names.items()}

    def manifests(self, config: TrialConfig) -> dict[str, Manifest]:
        """Their manifests."""
        return {part: facts.manifest for part, facts in self.datasets(config).items()}

    def claim(self, config: TrialConfig, plan: PrivacyPlan | None) -> PrivacyClaim:
        """The claim of a run under the plan that was reserved for it; None where nothing was."""
        from dpcore.privacy.claim import claim_of
        from dpcore.privacy.randomness import generator_name

        return claim_of(config, plan, self.manifests(config), randomness=generator_name(self._runtime))
