"""What one trial is: every setting that can change its weights, and nothing else.

`TrialConfig` holds a field exactly if two of its values can give different weights in exact arithmetic. What only
changes speed or rounding is in `RuntimeFlags`. Both are frozen; change makes a new object. Torch-free, so that a
search space loads without it.

`TrialConfig` is the only judge of combinations: a draw that it refuses is never scheduled.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dpcore.errors import BadInput

MECHANISM_VERSION = 2
"""Raised whenever the same config would give other weights than before."""

Relation = Literal["add_remove", "replace"]
"""What two neighbouring datasets differ in: one unit more or less, or one unit in another's place."""

Precision = Literal["fp32", "bf16"]

PrivacyUnit = Literal["person", "image", "video"]
"""What a guarantee protects: one annotated person's crop, all crops of one photograph, or all frames of one video."""

Method = Literal["dpsgd", "projected", "feature", "feature_projected", "public_only", "nonprivate"]
METHODS: tuple[str, ...] = get_args(Method)
FEATURE_METHODS = frozenset({"feature", "feature_projected"})
PROJECTED_METHODS = frozenset({"projected", "feature_projected"})
PRIVATE_METHODS = frozenset({"dpsgd", "projected", "feature", "feature_projected"})


class Part(BaseModel):
    """A frozen piece of configuration that refuses unknown keys and silent conversions of NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class DataConfig(Part):
    """Which datasets a trial reads. A name is a folder below the data directory, `synthetic/...` is built in."""

    private: str
    public: str
    validation: str
    nominal_examples: int = Field(
        ge=1, description="public N, in privacy units: with the expected batch it fixes q; never the realised count"
    )
    proxy: str | None = Field(
        default=None, description="a PUBLIC dataset in the private part's place: a rehearsal, nothing private is read"
    )
    proxy_examples: int | None = Field(default=None, ge=1, description="how many privacy units the proxy has")

    @model_validator(mode="after")
    def _proxy_with_its_size(self) -> Self:
        if (self.proxy is None) != (self.proxy_examples is None):
            raise ValueError("data.proxy and data.proxy_examples belong together: give both or neither")
        return self

    @property
    def in_private_place(self) -> str:
        """The dataset that private steps draw from: the proxy where there is one."""
        return self.private if self.proxy is None else self.proxy


class ModelConfig(Part):
    """The network. `freeze` names what stays fixed after public pretraining: `backbone` trains the head alone,
    `early` also the last block, `none` everything."""

    backbone: Literal["small", "folded"] = "small"
    weights: str | None = Field(default=None, description="folded network: folder/stem below the data directory, without _fp16.npz")
    feature_layers: tuple[str, ...] = Field(default=(), description="folded network: maps that are resized and concatenated")
    head: Literal["marginal", "flat"] = "marginal"
    head_start: Literal["random", "heatmap"] = "random"
    freeze: Literal["none", "early", "backbone"] = "early"
    input_height_px: int = Field(default=64, ge=16)
    input_width_px: int = Field(default=64, ge=16)
    marginal_sharpness: float = Field(default=1.0, gt=0, description="β of the marginal head's (1/β)·log-mean-exp(β·)")
    split_ratio: float = Field(default=2.0, gt=0, le=8)
    label_sigma_bins: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _folded_has_weights(self) -> Self:
        if self.backbone == "folded" and (self.weights is None or not self.feature_layers):
            raise ValueError("model.backbone folded needs model.weights and model.feature_layers")
        if self.backbone != "folded" and (self.weights is not None or self.feature_layers or self.head_start != "random"):
            raise ValueError("model.weights, model.feature_layers and model.head_start belong to model.backbone folded")
        if self.head != "marginal" and self.marginal_sharpness != 1.0:
            raise ValueError("model.marginal_sharpness belongs to model.head marginal")
        if self.backbone == "folded" and self.freeze == "early":
            raise ValueError("model.freeze early is for the small backbone; with a folded one give backbone or none")
        return self


class AugmentationConfig(Part):
    """Random geometry and light of the training images. A pair of an example and its public view shares one draw."""

    flip_prob: float = Field(default=0.0, ge=0, le=1)
    scale_frac: float = Field(default=0.0, ge=0, lt=1)
    rotate_deg: float = Field(default=0.0, ge=0, le=180)
    rotate_prob: float = Field(default=0.0, ge=0, le=1)
    photometric_frac: float = Field(default=0.0, ge=0, le=1, description="contrast and gains in 1 ± this, clutter up to half of it")

    @property
    def is_identity(self) -> bool:
        """Whether every draw leaves the image as it is, so that features of frozen layers can be cached."""
        turns = self.rotate_deg > 0 and self.rotate_prob > 0
        return not (turns or self.flip_prob or self.scale_frac or self.photometric_frac)


class SplitConfig(Part):
    """The sensitive-feature split: what of an image is public. A wider public part is a weaker promise."""

    name: str = Field(min_length=1)
    transform: Literal["gaussian_blur", "downsample", "pixelate"]
    sigma_px: float | None = Field(default=None, gt=0)
    factor: int | None = Field(default=None, ge=2)
    cell_px: int | None = Field(default=None, ge=2)
    region: Literal["all", "head", "person", "background"] = "all"
    sharpen: Literal["none", "wiener"] = Field(default="none", description="post-processing of the stored bytes: free")

    @model_validator(mode="after")
    def _strength_of_its_transform(self) -> Self:
        wanted = {"gaussian_blur": "sigma_px", "downsample": "factor", "pixelate": "cell_px"}[self.transform]
        given = [k for k in ("sigma_px", "factor", "cell_px") if getattr(self, k) is not None]
        if given != [wanted]:
            raise ValueError(f"split {self.name}: transform {self.transform} takes {wanted} alone, given {given or 'none'}")
        if self.sharpen == "wiener" and (self.transform != "gaussian_blur" or self.region != "all"):
            raise ValueError(f"split {self.name}: sharpen wiener needs transform gaussian_blur on region all")
        return self


class SubspaceConfig(Part):
    """The public gradient subspace V of the projected methods (Zhou, Wu, Banerjee, ICLR 2021)."""

    rank: int | Literal["full"] | None = None
    examples: int = Field(default=256, ge=1, description="m: per-example public gradients that V is fitted to")
    source: Literal["public", "public_view"] = "public"
    refresh_steps: int | None = Field(default=None, ge=1, description="fit again every so many steps; None: once, at the start")
    order: Literal["clip_then_project", "project_then_clip"] = "clip_then_project"

    @field_validator("rank")
    @classmethod
    def _positive_rank(cls, rank: int | str | None) -> int | str | None:
        if isinstance(rank, int) and rank < 1:
            raise ValueError(f"subspace.rank must be at least 1 or full, given {rank}")
        return rank


class PublicStage(Part):
    """Pretraining on the PUBLIC dataset. `freeze: none` trains the whole network, as a backbone from scratch needs."""

    steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    freeze: Literal["none", "early", "backbone"] = "none"
    augmentation: AugmentationConfig = AugmentationConfig()


class PublicViewStage(Part):
    """Training on the stored public views alone; its end is the floor of its split."""

    until: Literal["converged"] | None = None
    steps: int | None = Field(default=None, ge=1)
    max_steps: int = Field(default=3000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.until is None) == (self.steps is None):
            raise ValueError("stages.public_view takes either until: converged or steps, not both and not neither")
        return self


class TeacherStage(PublicStage):
    """The public model that stands in for private labels: from the end of `stages.public` it trains on the views of the PUBLIC
    dataset, under the trial's split and with that dataset's own labels, and then reads the private dataset's views.

    On embedded data under a blur of 3 px, hits at PCKh@0.5 over all joints: 36.9 % by the end of `stages.public`, 45.5 % after 400
    steps, 48.0 % after 800, 47.7 % after 1,500; without augmentation 43.2 % after 400, with the early block frozen
    42.6 %. At `min_confidence` 0.5 the teacher of 800 steps labels 64 % of the joints, and 63 % of those labels are hits.
    """

    steps: int = Field(default=800, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    augmentation: AugmentationConfig = AugmentationConfig(flip_prob=0.5, photometric_frac=0.7)
    min_confidence: float = Field(
        default=0.5, ge=0, le=1, description="share of the teacher's mass about its peak, in x and in y, from which a joint is visible"
    )


class PrivateStage(Part):
    """The private steps. q = expected_batch_size / data.nominal_examples, both in privacy units."""

    steps: int = Field(ge=1)
    expected_batch_size: int = Field(ge=1, description="B, in privacy units: how many a step draws on average, and its divisor")


class Stages(Part):
    public: PublicStage = PublicStage()
    public_view: PublicViewStage | None = None
    private: PrivateStage


class OptimizerConfig(Part):
    """Turns released directions into weights: post-processing, free of privacy cost."""

    name: Literal["sgd", "adam"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd's momentum, adam's beta1")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    dp_bias_correction: bool = Field(default=False, description="adam: take the known variance of the noise off the second moment")

    @model_validator(mode="after")
    def _correction_has_a_second_moment(self) -> Self:
        if self.dp_bias_correction and self.name != "adam":
            raise ValueError(f"optimizer.dp_bias_correction corrects adam's second moment: leave it out for {self.name}")
        return self


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

    method: Method
    data: DataConfig
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    stages: Stages
    start: Literal["public", "public_view"] = "public"
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    split: SplitConfig | None = None
    public_weight: float | None = Field(default=None, ge=0, le=1, description="λ; feature methods, 1 unless said")
    private_weight: float | None = Field(default=None, ge=0, description="α; feature methods, 1 unless said; 0 is the control")
    public_batch_size: int | None = Field(
        default=None, ge=1, description="feature methods: units per step whose views are behind the public term"
    )
    subspace: SubspaceConfig = SubspaceConfig()
    labels: Literal["public", "private"] = "public"
    teacher: TeacherStage = TeacherStage()
    privacy_unit: PrivacyUnit = Field(default="image", description="what q, B and data.nominal_examples count and the claim protects")
    examples_per_unit: int = Field(default=1, ge=1, description="of a drawn unit at most so many examples take part in a step")
    relation: Relation = Field(
        default="add_remove", description="of neighbouring datasets: a unit added or removed, or replaced by another"
    )
    seed: int = Field(default=0, ge=0, description="initialisation and public batches; never sampling or noise of private data")

    @model_validator(mode="before")
    @classmethod
    def _feature_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method") in FEATURE_METHODS:
            filled = dict(values)
            for key, default in (("public_weight", 1.0), ("private_weight", 1.0), ("public_batch_size", 64)):
                if filled.get(key) is None:
                    filled[key] = default
            return filled
        return values

    @model_validator(mode="after")
    def _method_has_its_own_settings(self) -> Self:
        private, feature = self.method in PRIVATE_METHODS, self.method in FEATURE_METHODS
        rules = (
            ("epsilon", self.epsilon, private and not self.is_control, private),
            ("delta", self.delta, private and not self.is_control, private),
            ("clip_norm", self.clip_norm, private and not self.is_control, private),
            ("subspace.rank", self.subspace.rank, self.method in PROJECTED_METHODS, self.method in PROJECTED_METHODS),
            ("public_weight", self.public_weight, feature, feature),
            ("private_weight", self.private_weight, feature, feature),
            ("public_batch_size", self.public_batch_size, feature, feature),
        )
        for name, value, needed, allowed in rules:
            if needed and value is None:
                raise ValueError(f"method {self.method} needs {name}: give it a value")
            if not allowed and value is not None:
                raise ValueError(f"method {self.method} has no {name}: leave it out (given {value})")
        return self

    @model_validator(mode="after")
    def _split_where_it_is_used(self) -> Self:
        uses_view = self.method in FEATURE_METHODS or self.start == "public_view" or self.subspace.source == "public_view"
        if uses_view and self.split is None:
            raise ValueError(f"method {self.method} with start {self.start} reads public views: give a split")
        if not uses_view and self.split is not None:
            raise ValueError(f"method {self.method} with start {self.start} reads no public view: leave split out")
        if self.start == "public_view" and self.stages.public_view is None:
            raise ValueError("start public_view needs stages.public_view")
        if self.method == "nonprivate" and self.start != "public":
            raise ValueError("method nonprivate starts from the public model: set start to public")
        if self.subspace.source == "public_view" and self.method != "feature_projected":
            raise ValueError("subspace.source public_view is for method feature_projected: elsewhere give public")
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
    def _numbers_fit(self) -> Self:
        if self.method == "public_only" and self.examples_per_unit != 1:
            raise ValueError(f"method public_only draws no unit: leave examples_per_unit out (given {self.examples_per_unit})")
        rank, examples = self.subspace.rank, self.subspace.examples
        if isinstance(rank, int) and rank > examples:
            raise ValueError(f"subspace.rank {rank} is more than the {examples} public examples (subspace.examples) it is fitted to")
        expected, nominal = self.stages.private.expected_batch_size, self.data.nominal_examples
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
    def is_control(self) -> bool:
        """A feature run with its private part switched off: it reads no private pixel and spends nothing."""
        return self.method in FEATURE_METHODS and self.private_weight == 0

    @property
    def adds_noise(self) -> bool:
        """Whether the run clips and adds noise, for private data or, as a rehearsal, for a proxy."""
        return self.method in PRIVATE_METHODS and not self.is_control

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
        """64 bits of sha256 over every field: equal exactly for configs that train the same weights."""
        return digest_of({"config": self.model_dump(mode="json"), "mechanism": MECHANISM_VERSION})


class RuntimeFlags(Part):
    """What changes speed or rounding, never the trained function in exact arithmetic. Stored beside every result;
    a replay restores it and refuses what it cannot match."""

    threads: int = Field(default=1, ge=1)
    physical_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default="auto", description="auto: probed before step 0")
    report_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = Field(default="fp32", description="of forward and backward in the steps; what is clipped and summed is float32")
    secure_rng: bool = Field(default=False, description="private streams from ChaCha20 instead of Philox")
    largest_rank: int | None = Field(
        default=None, ge=1, description="of a sweep: for it a node fits the subspace of the start, and trials take their leading directions"
    )


class Places(Part):
    """Where a process finds datasets (`data_dir`) and keeps what can be rebuilt (`cache_dir`)."""

    data_dir: Path
    cache_dir: Path


def digest_of(document: Any) -> str:
    """16 hex digits of sha256 over the canonical JSON of `document`."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


PartT = TypeVar("PartT", bound=BaseModel)


def parse_config(kind: type[PartT], values: Any, *, where: str = "") -> PartT:
    """`values` as a `kind`, or `BadInput` with one line per mistake: path, what was expected, what was given."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput("\n".join(_describe_mistake(kind, dict(mistake), where) for mistake in error.errors())) from None


def _describe_mistake(kind: type[BaseModel], mistake: dict[str, Any], where: str) -> str:
    parts = [str(part) for part in mistake["loc"]]
    path = ".".join([where, *parts] if where else parts)
    if mistake["type"] == "extra_forbidden":
        return f"{path}: unknown key{did_you_mean(parts[-1], field_names(kind, parts[:-1]))}"
    if mistake["type"] == "missing":
        return f"{path}: missing; give it a value"
    if mistake["type"] == "value_error":
        return f"{path + ': ' if path else ''}{mistake['ctx']['error']}"
    return f"{path}: {mistake['msg'].lower()}, given {mistake['input']!r}"


def field_names(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that `kind` takes at a path of nested parts; empty where the path leads out of the parts."""
    for part in path:
        field = kind.model_fields.get(part)
        annotations = [] if field is None else [field.annotation, *get_args(field.annotation)]
        nested = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return []
        kind = nested[0]
    return list(kind.model_fields)


def did_you_mean(given: str, known: list[str]) -> str:
    """The tail of an error message about a wrong name: the nearest known one, else all of them."""
    near = difflib.get_close_matches(given, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected one of {', '.join(sorted(known))}" if known else ""
