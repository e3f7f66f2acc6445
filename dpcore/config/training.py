"""The stages of a trial and the optimizer of its private steps."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from dpcore.config.data import AugmentationConfig
from dpcore.config.freezing import Freeze, FreezeRule, policy_of
from dpcore.config.parsing import Part

WeightScale = Literal["absolute", "relative"]
"""In which units weights are trained: as they are, or each tensor in units of its root mean square at the start."""


class PublicStage(Part):
    """Pretraining on the PUBLIC dataset. `freeze: none` trains the whole network, as a backbone from scratch needs.

    A small PUBLIC dataset is learned by heart: EfficientNet-Lite0 on COCO-mini scores 24.0 after 125 steps and 21.9 after 500 on LSPET.
    `until: best` holds a tenth of the dataset out and keeps the weights whose loss there was the lowest.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"scale", "until"})

    steps: int = Field(default=0, ge=0, description="0: the network stays as its weights are")
    until: Literal["best"] | None = Field(default=None, description="best: keep the weights of the lowest loss on a held-out tenth")
    batch_size: int = Field(default=64, ge=1, description="pictures per step")
    learning_rate: float = Field(default=1e-3, gt=0, description="adam's, at the start")
    freeze: Freeze = Field(default="none", description="what of the network this stage trains, as in model.freeze")
    augmentation: AugmentationConfig = Field(default=AugmentationConfig(), description="of this stage's pictures")
    scale: WeightScale = Field(default="absolute", description="relative: weights in units of each tensor's root mean square at the start")

    @field_validator("freeze")
    @classmethod
    def _trains_what_is_there(cls, freeze: str | FreezeRule) -> str | FreezeRule:
        policy = policy_of(freeze)
        if policy.lora is not None or policy.random_start:
            raise ValueError("lora and scratch belong to model.freeze: a stage trains what the network has")
        return freeze


class PublicViewStage(Part):
    """Training on the stored public views alone; its end is the floor of its split."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"scale"})

    until: Literal["converged"] | None = Field(default=None, description="converged: until the loss on held-out views stops falling")
    steps: int | None = Field(default=None, ge=1, description="a fixed number, in place of `until`")
    max_steps: int = Field(default=3000, ge=1, description="until converged: at most so many")
    batch_size: int = Field(default=64, ge=1, description="pictures per step")
    learning_rate: float = Field(default=1e-3, gt=0, description="adam's, at the start")
    scale: WeightScale = Field(default="absolute", description="relative: weights in units of each tensor's root mean square at the start")

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.until is None) == (self.steps is None):
            raise ValueError("stages.public_view takes either until: converged or steps, not both and not neither")
        return self


class TeacherStage(PublicStage):
    """The public model that stands in for private labels: from the end of `stages.public` it trains on the views of the PUBLIC
    dataset, under the trial's split and with that dataset's own labels, and then reads the private dataset's views.

    On embedded data of generator 1 under a blur of 3 px, hits at PCKh@0.5 over all joints: 36.9 % by the end of `stages.public`, 45.5 %
    after 400 steps, 48.0 % after 800, 47.7 % after 1,500; without augmentation 43.2 % after 400, with the early block frozen 42.6 %. At
    `min_confidence` 0.5 the teacher of 800 steps labels 64 % of the joints, and 63 % of those labels are hits.
    """

    steps: int = Field(default=800, ge=1, description="on views of the PUBLIC dataset")
    learning_rate: float = Field(default=3e-3, gt=0, description="adam's, at the start")
    augmentation: AugmentationConfig = Field(
        default=AugmentationConfig(flip_prob=0.5, photometric_frac=0.7), description="of this stage's pictures"
    )
    min_confidence: float = Field(
        default=0.5, ge=0, le=1, description="share of the teacher's mass about its peak, in x and in y, from which a joint is visible"
    )


class PrivateStage(Part):
    """The private steps. q = expected_batch_size / data.nominal_examples, both in privacy units."""

    steps: int = Field(ge=1, description="T, private steps; with q they decide the noise of an ε")
    expected_batch_size: int = Field(ge=1, description="B, in privacy units: how many a step draws on average, and its divisor")


class Stages(Part):
    """What a trial trains on, one after the other: PUBLIC people, public views of private people, private people."""

    public: PublicStage = Field(default=PublicStage(), description="pretraining on PUBLIC people")
    public_view: PublicViewStage | None = Field(default=None, description="training on public views; its end is the floor")
    private: PrivateStage = Field(description="training under differential privacy")


class OptimizerConfig(Part):
    """Turns released directions into weights: post-processing, free of privacy cost.

    Weight decay is decoupled from the direction. So `adam` with a `weight_decay` is AdamW (Loshchilov and Hutter 2019)."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"drop_at_frac", "drop_factor", "scale"})

    name: Literal["sgd", "adam"] = Field(default="adam", description="of the private steps")
    learning_rate: float = Field(default=1e-3, gt=0, description="at the start; `schedule` says how it goes on")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd's momentum, adam's beta1")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled: each step takes this part of learning rate times weight off")
    scale: WeightScale = Field(
        default="absolute", description="relative: weights, clip and noise in units of each tensor's root mean square at the public start"
    )
    schedule: Literal["constant", "cosine", "step"] = Field(
        default="cosine", description="of the learning rate: unchanged, a cosine down to 0, or one drop"
    )
    drop_at_frac: float = Field(default=0.8, gt=0, lt=1, description="schedule step: the part of the steps before the learning rate drops")
    drop_factor: float = Field(default=0.1, gt=0, lt=1, description="schedule step: what the learning rate is multiplied by there")
    dp_bias_correction: bool = Field(default=False, description="adam: take the known variance of the noise off the second moment")

    @model_validator(mode="after")
    def _drop_belongs_to_its_schedule(self) -> Self:
        for name in ("drop_at_frac", "drop_factor"):
            given = getattr(self, name)
            if self.schedule != "step" and given != type(self).model_fields[name].default:
                raise ValueError(f"optimizer.{name} belongs to optimizer.schedule step: leave it out for {self.schedule} (given {given:g})")
        return self

    @model_validator(mode="after")
    def _correction_has_a_second_moment(self) -> Self:
        if self.dp_bias_correction and self.name != "adam":
            raise ValueError(f"optimizer.dp_bias_correction corrects adam's second moment: leave it out for {self.name}")
        return self
