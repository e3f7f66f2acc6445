"""What one trial is: every setting that can change its weights, and nothing else.

`TrialConfig` holds a field exactly if two of its values can give different weights, or other predictions from them, in exact
arithmetic. What only changes speed or rounding is in `RuntimeFlags`. Both are frozen; change makes a new object. Torch-free, so that a
search space loads without it.

`TrialConfig` is the only judge of combinations: a draw that it refuses is never scheduled.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dpcore.config.data import DataConfig, RecordAugmentation, SplitConfig
from dpcore.config.evaluation import EvaluationConfig
from dpcore.config.losses import LOSSES, SIMCC, PckMassConfig
from dpcore.config.methods import METHOD_FIELDS, METHODS, Method
from dpcore.config.model import ModelConfig
from dpcore.config.networks import HEADS
from dpcore.config.parsing import Part, digest_of, identity_of, parse_config
from dpcore.config.privacy import PrivacyUnit, Relation, SubspaceConfig
from dpcore.config.training import OptimizerConfig, Stages, TeacherStage

MECHANISM_VERSION = 2
"""Raised whenever the same config would give other weights than before."""


class TrialConfig(Part):
    """One trial, whole. See the module docstring for what belongs here.

    | method | needs | must not have |
    |---|---|---|
    | dpsgd | epsilon, delta, clip_norm | public_weight, private_weight, subspace.rank |
    | projected | the same and subspace.rank | public_weight, private_weight |
    | feature | epsilon, delta, clip_norm, split | subspace.rank |
    | feature_projected | the same and subspace.rank | |
    | public_only | nothing private | epsilon, clip_norm, weights of the private term, subspace.rank |
    | nonprivate | | the same; its ε is infinite |
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"evaluation", "loss", "pck_mass"})

    method: Annotated[str, AfterValidator(METHODS.checked)] = Field(description=f"the training method: {', '.join(METHODS.own)}")
    data: DataConfig = Field(description="the datasets")
    model: ModelConfig = Field(default=ModelConfig(), description="the network")
    augmentation: RecordAugmentation = Field(default=RecordAugmentation(), description="of private pictures and their public views")
    stages: Stages = Field(description="how long and on what is trained")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="how the model is asked for keypoints")
    start: Literal["public", "public_view"] = Field(
        default="public", description="the stage after which private steps begin; public_view: at the floor of the split"
    )
    loss: Annotated[str, AfterValidator(LOSSES.checked)] = Field(default=SIMCC, description=f"the training loss: {', '.join(LOSSES.own)}")
    pck_mass: PckMassConfig = Field(default=PckMassConfig(), description="loss pck_mass: what counts as a hit")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="of the private steps")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="the model is a moving average of its weights, which keeps this part each step. None: none"
    )
    epsilon: float | None = Field(default=None, gt=0, description="ε of this trial; a sweep sets it from sweep.epsilons")
    delta: float | None = Field(default=None, gt=0, lt=1, description="δ of this trial; a sweep sets it from sweep.delta")
    clip_norm: float | None = Field(default=None, gt=0, description="C: the largest norm of one unit's row in the private sum")
    split: SplitConfig | None = Field(default=None, description="what counts as public of a picture; in a space file the name of a split")
    public_weight: float | None = Field(default=None, ge=0, le=1, description="λ; feature methods, 1 unless said")
    private_weight: float | None = Field(default=None, ge=0, description="α; feature methods, 1 unless said; 0 is the control")
    public_batch_size: int | None = Field(
        default=None, ge=1, description="feature methods: units per step whose views are behind the public term"
    )
    subspace: SubspaceConfig = Field(default=SubspaceConfig(), description="the public subspace of projected methods")
    labels: Literal["public", "private"] = Field(
        default="public", description="private: keypoints, visibility and head sizes are protected"
    )
    teacher: TeacherStage = Field(default=TeacherStage(), description="labels private: the public model that stands in for labels")
    privacy_unit: PrivacyUnit = Field(default="image", description="what q, B and data.nominal_examples count and the claim protects")
    examples_per_unit: int = Field(default=1, ge=1, description="of a drawn unit at most so many examples take part in a step")
    relation: Relation = Field(
        default="add_remove", description="of neighbouring datasets: a unit added or removed, or replaced by another"
    )
    seed: int = Field(default=0, ge=0, description="initialisation and public batches; never sampling or noise of private data")

    @model_validator(mode="before")
    @classmethod
    def _feature_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        method = METHODS.find(values.get("method"))
        if method is not None and method.uses_views:
            filled = dict(values)
            for key, default in (("public_weight", 1.0), ("private_weight", 1.0), ("public_batch_size", 64)):
                if filled.get(key) is None:
                    filled[key] = default
            return filled
        return values

    @model_validator(mode="after")
    def _method_has_its_own_settings(self) -> Self:
        values = self.model_dump(include={path.partition(".")[0] for path in METHOD_FIELDS})
        for path in METHOD_FIELDS:
            value = functools.reduce(dict.__getitem__, path.split("."), values)
            if value is None and self.traits.needs(path, control=self.is_control):
                raise ValueError(f"method {self.method} needs {path}: give it a value")
            if value is not None and path not in self.traits.fields:
                raise ValueError(f"method {self.method} has no {path}: leave it out (given {value})")
        return self

    @model_validator(mode="after")
    def _split_where_it_is_used(self) -> Self:
        uses_view = self.traits.uses_views or self.start == "public_view" or self.subspace.source == "public_view"
        if uses_view and self.split is None:
            raise ValueError(f"method {self.method} with start {self.start} reads public views: give a split")
        if not uses_view and self.split is not None:
            raise ValueError(f"method {self.method} with start {self.start} reads no public view: leave split out")
        if self.start == "public_view" and self.stages.public_view is None:
            raise ValueError("start public_view needs stages.public_view")
        if self.subspace.source == "public_view" and not (self.traits.uses_views and self.traits.projects):
            raise ValueError("subspace.source public_view is for method feature_projected: elsewhere give public")
        if self.subspace.gradients == "residual" and not (
            self.traits.uses_views and self.traits.projects and self.subspace.source == "public"
        ):
            raise ValueError("subspace.gradients residual is for method feature_projected and subspace.source public: elsewhere give plain")
        return self

    @model_validator(mode="after")
    def _loss_fits_the_head(self) -> Self:
        gives, loss = HEADS.get(self.model.head).gives, LOSSES.get(self.loss)
        if gives not in loss.outputs:
            raise ValueError(
                f"loss {self.loss} is of {' or '.join(sorted(loss.outputs))}, head {self.model.head} gives {gives}; give simcc"
            )
        if self.pck_mass != PckMassConfig() and not loss.has_hits:
            raise ValueError(f"pck_mass belongs to loss pck_mass: leave it out for {self.loss}")
        return self

    @model_validator(mode="after")
    def _labels_stay_out_of_what_is_public(self) -> Self:
        if self.labels == "public" and self.teacher != TeacherStage():
            raise ValueError("labels public needs no teacher: leave teacher out, or set labels to private")
        if self.labels == "private" and self.split is not None and self.split.region != "all":
            raise ValueError(
                f"labels private: split {self.split.name} finds the region {self.split.region} by keypoints, so its views would show some "
                "of them; give a split of region all"
            )
        return self

    @model_validator(mode="after")
    def _square_crops_are_turned(self) -> Self:
        height, width = self.model.input_height_px, self.model.input_width_px
        if self.data.canonical_rotation is not None and height != width:
            raise ValueError(f"data.canonical_rotation turns square crops by quarters: give a square input, not {height}x{width} px")
        return self

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        problem = self.traits.refusal(self)
        if problem is not None:
            raise ValueError(problem)
        if self.optimizer.dp_bias_correction and self.traits.direction is not None:
            raise ValueError(
                f"optimizer.dp_bias_correction: method {self.method} makes its own direction, whose noise is not known; leave it out"
            )
        rank, examples = self.subspace.rank, self.subspace.examples
        if isinstance(rank, int) and rank > examples:
            raise ValueError(f"subspace.rank {rank} is more than the {examples} public examples (subspace.examples) it is fitted to")
        expected, nominal = self.stages.private.expected_batch_size, self.data.nominal_examples
        if self.delta is not None and self.delta * nominal >= 1:
            raise ValueError(
                f"delta {self.delta:g} is not below 1/N = {1 / nominal:.3g} (data.nominal_examples {nominal}): publishing one whole record "
                f"would keep it; give at most {1 / (10 * nominal):.3g}"
            )
        if expected > nominal:
            raise ValueError(f"stages.private.expected_batch_size {expected} is more than data.nominal_examples {nominal}")
        if self.public_weight == 0 and self.private_weight == 0:
            raise ValueError("public_weight 0 and private_weight 0 leave nothing to train on")
        return self

    @property
    def sampling_prob(self) -> float:
        """q, the probability that a step draws a given privacy unit."""
        return self.stages.private.expected_batch_size / self.data.nominal_examples

    @property
    def traits(self) -> Method:
        """What `method` names."""
        return METHODS.get(self.method)

    @property
    def is_control(self) -> bool:
        """A feature run with its private part switched off: it reads no private pixel and spends nothing."""
        return self.traits.uses_views and self.private_weight == 0

    @property
    def adds_noise(self) -> bool:
        """Whether the run clips and adds noise, for private data or, as a rehearsal, for a proxy."""
        return self.traits.is_private and not self.is_control

    @property
    def is_rehearsal(self) -> bool:
        """Whether a PUBLIC proxy stands in the private part's place: nothing private is read, nothing is spent."""
        return self.data.proxy is not None

    @property
    def spends_privacy(self) -> bool:
        """Whether the run releases anything under a finite ε that the ledger must hold."""
        return self.adds_noise and not self.is_rehearsal

    def without_proxy(self) -> TrialConfig:
        """The private run that a rehearsal stands for."""
        return self.changed(**{"data.proxy": None, "data.proxy_examples": None}) if self.is_rehearsal else self

    def changed(self, **paths: Any) -> TrialConfig:
        """A new, validated config with dotted paths replaced (`changed(**{"optimizer.learning_rate": 0.1})`)."""
        values = self.model_dump(mode="json")
        for path, value in paths.items():
            *parents, leaf = path.split(".")
            node = values
            for parent in parents:
                node = node[parent]
            node[leaf] = value
        return parse_config(TrialConfig, values)

    def fingerprint(self) -> str:
        """64 bits of sha256 over every field: equal exactly for configs that train and score the same weights."""
        return digest_of({"config": identity_of(self), "mechanism": MECHANISM_VERSION})
