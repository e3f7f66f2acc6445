"""The datasets of one trial, opened and checked together."""

from __future__ import annotations

from dataclasses import dataclass

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import check_amounts, check_crops, check_roles, check_sizes, check_unit, open_dataset, unit_ids
from dpcore.data.shards import ShardSet
from dpcore.data.views import build_views
from dpcore.errors import Refused
from dpcore.privacy.rehearsal import check_proxy_size
from dpcore.train.inputs import labels_of
from dpcore.train.pseudo_labels import pseudo_labelled
from dpcore.train.sources import LabelledViews
from dpcore.train.upright import as_read, private_as_read, views_as_read


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """`private` (role PRIVATE; in a rehearsal the PUBLIC proxy), `public` (role PUBLIC) and `validation` (PUBLIC, or PRIVATE
    where its score leaves with noise), and the public side of `private` where the config has a split: its stored views with public
    labels, or with a teacher's where labels are private. `public_views`: those of `public`, where a subspace is fitted to residuals. All
    have the skeleton of `private`; PUBLIC data of another one are mapped to it by the names of their joints."""

    private: ShardSet
    public: ShardSet
    validation: ShardSet
    views: LabelledViews | None
    public_views: LabelledViews | None = None

    @property
    def protected(self) -> bool:
        """Whether data of the trial are of real people who must be protected: then private facts stay in the worker."""
        return self.private.manifest.protected or self.validation.manifest.protected

    def digests(self) -> dict[str, str]:
        """Digests by part, those of protected data under the dataset's key."""
        found = {name: dataset.identity for name, dataset in self._parts()}
        if self.views is None:
            return found
        found["views"] = self.views.stored.digest
        if self.views.teacher is not None:
            labels = self.private.outer_digest(self.views.labels.digest)
            found |= {"teacher": self.views.teacher, "pseudo_labels": labels}
        return found

    def _parts(self) -> tuple[tuple[str, ShardSet], ...]:
        return ("private", self.private), ("public", self.public), ("validation", self.validation)


def open_trial_data(
    config: TrialConfig, places: Places, runtime: RuntimeFlags, *, sealed: bool = False, private_validation: bool = False
) -> TrialData:
    """Opens what the config names; builds embedded datasets, public views and pseudo-labels on first use.

    Args:
        config: the trial. places: datasets and caches. runtime: how a teacher is computed.
        sealed: the caller shows nothing of the trial, so that protected data may be trained on without privacy.
        private_validation: validation is PRIVATE, and its score leaves with noise that the caller has reserved.

    Raises:
        BadInput: a dataset is missing, its crops are not the size of the model's input, its skeleton gives none of the private joints, or
            a setting asks for more examples than it has.
        Refused: a role is wrong, PUBLIC and PRIVATE overlap, or the trial could not keep what its claim says.
        Corrupt: a shard differs from its manifest.
    """
    private = open_dataset(config.data.in_private_place, places)
    public = open_dataset(config.data.public, places).as_skeleton(private.skeleton)
    validation = open_dataset(config.data.validation, places).as_skeleton(private.skeleton)
    check_roles(private, public, validation, private_validation=private_validation, rehearsal=config.is_rehearsal)
    private = private_as_read(private, config, places)
    public, validation = (as_read(one, config, places) for one in (public, validation))
    check_sizes(config, (private, public, validation))
    check_amounts(config, private=private, public=public)
    _check_guarantee(config, private, sealed=sealed)
    views = public_side(config, private, public=public, places=places, runtime=runtime)
    public_views = None
    if config.subspace.gradients == "residual" and config.split is not None:
        public_views = LabelledViews(build_views(public, config.split, places), labels_of(public))
    return TrialData(private=private, public=public, validation=validation, views=views, public_views=public_views)


def public_side(config: TrialConfig, private: ShardSet, *, public: ShardSet, places: Places, runtime: RuntimeFlags) -> LabelledViews | None:
    """What the public side may hold of `private`; the last place at which its labels can be chosen, or left behind."""
    if config.split is None:
        return None
    stored = views_as_read(private, config.split, places)
    if config.labels == "public":
        return LabelledViews(stored, labels_of(private))
    return pseudo_labelled(stored, config, public=public, places=places, runtime=runtime)


def _check_guarantee(config: TrialConfig, private: ShardSet, *, sealed: bool) -> None:
    """Refuses what would make the claim untrue: units that cannot be told apart, protected data without privacy."""
    manifest = private.manifest
    if config.traits.is_unbounded and manifest.protected and not sealed:
        raise Refused(f"method {config.method} would release gradients of {manifest.name}, which is protected; choose a private method")
    if config.spends_privacy:
        check_unit(private, config.privacy_unit)
    if config.is_rehearsal:
        check_proxy_size(config, len(set(unit_ids(private, config.privacy_unit))))
    if config.labels == "private" and config.split is not None:
        check_crops(private)


def needs_pairs(config: TrialConfig) -> bool:
    """Whether private steps read the public view of each drawn record."""
    return config.traits.uses_views and not config.is_control
