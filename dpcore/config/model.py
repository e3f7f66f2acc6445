"""The network of a trial and what of it is trained."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dpcore.config.evaluation import MOST_SCALE, EvaluationConfig, Rotations
from dpcore.config.freezing import POLICIES, Freeze, policy_of
from dpcore.config.networks import HEADS, TIMM, TIMM_WEIGHTS, Backbone, backbone_traits, checked_backbone
from dpcore.config.parsing import Part
from dpcore.config.runtime import Precision


class SecondLookConfig(Part):
    """A second look at a crop: in a square around the person, torso upright, as the first look found them."""

    rotations_deg: Rotations = Field(
        default=(0.0, 20.0, -20.0), min_length=1, description="the person turned counterclockwise by each, from upright"
    )
    margin: float = Field(
        default=1.25, ge=1, le=MOST_SCALE, description="side of the square, as a factor of the longer side of the box around the keypoints"
    )
    side_px: int = Field(default=320, ge=64, le=1024, multiple_of=32, description="side of what the network reads of the square")
    times: int = Field(default=1, ge=1, le=4, description="how often: each time in the square that all views before it say")


class AskedConfig(EvaluationConfig):
    """The views of a crop in which the backbone `keypoints` asks its network, and how what it says is fused."""

    ADDED: ClassVar[frozenset[str]] = EvaluationConfig.ADDED | {"second_look"}

    second_look: SecondLookConfig | None = Field(
        default=None, description="further views, around the person and upright, fused with the others; with their mirror images if flip"
    )
    precision: Precision = Field(
        default="fp32", description="of the network's forward pass; bf16 is faster where the CPU has instructions for it"
    )

    @model_validator(mode="after")
    def _asks_of_the_crop(self) -> Self:
        if self.inputs != "sharp":
            raise ValueError("model.asked: the network is asked of the crop that it is given; inputs view and both belong to evaluation")
        return self


class ModelConfig(Part):
    """The network. `freeze` says what trains after public pretraining: the head alone (`backbone`), also the last block (`early`),
    everything (`none`), or what a policy or a rule names (`dpcore.config.freezing`)."""

    ADDED: ClassVar[frozenset[str]] = frozenset(
        {
            "weights_left_out",
            "batch_norm",
            "feature_stride_px",
            "input_whitening",
            "position_prior",
            "pyramid_channels",
            "asked",
            "asked_for_training",
            "crop_zoom",
            "input_side_px",
        }
    )

    backbone: Annotated[str, AfterValidator(checked_backbone)] = Field(
        default="small", description="the network below the head: small, folded, keypoints, timm:NAME, or module:FUNCTION"
    )
    weights: str | None = Field(
        default=None,
        description="below the data directory. folded: folder/stem, without _fp16.npz; networks from elsewhere: a file, or timm for timm's",
    )
    weights_left_out: tuple[str, ...] = Field(default=(), description="patterns of tensors in the file that the network has no place for")
    feature_layers: tuple[str, ...] = Field(default=(), description="folded network and timm: maps that are resized and concatenated")
    feature_stride_px: Literal[4, 8, 16] = Field(default=8, description="folded: input px per cell of the grid that its maps are put on")
    batch_norm: Literal["fold", "group_norm", "frozen"] = Field(
        default="fold", description="networks from elsewhere: into the layer before it, GroupNorm in its place, or fixed statistics"
    )
    asked: AskedConfig | None = Field(
        default=None, description="backbone keypoints: the views of a crop in which the network is asked, and how they are fused"
    )
    asked_for_training: AskedConfig | None = Field(
        default=None, description="backbone keypoints: fewer views for what is trained on, where asking in all of them takes too long"
    )
    head: Annotated[str, AfterValidator(HEADS.checked)] = Field(
        default="marginal", description=f"what makes coordinates of features: {', '.join(HEADS.own)}"
    )
    head_start: Literal["random", "heatmap"] = Field(
        default="random", description="heatmap: the head starts from the heat maps of the public weights"
    )
    freeze: Freeze = Field(default="early", description=f"what trains after public pretraining: {', '.join(POLICIES)}, or a rule")
    input_height_px: int = Field(default=64, ge=16, description="height of the crops")
    input_width_px: int = Field(default=64, ge=16, description="width of the crops")
    input_side_px: int | None = Field(
        default=None, ge=16, description="sets height and width of a square input, so that one search moves both"
    )
    marginal_sharpness: float = Field(
        default=1.0,
        gt=0,
        description="β of the marginal head's (1/β)·log-mean-exp(β·); of fpn2d, linear2d and keypoints: what its logits are multiplied by",
    )
    input_whitening: Literal["none", "public"] = Field(
        default="none", description="public: what a head that starts at random reads is whitened by the covariance of PUBLIC features"
    )
    position_prior: str = Field(
        default="none",
        description="of a head that starts at random: public (labels of the PUBLIC dataset), or a pool of poses below the data directory",
    )
    pyramid_channels: int = Field(default=32, ge=1, description="F of the head fpn2d, where it makes a feature pyramid of its own")
    crop_zoom: float | None = Field(
        default=None,
        ge=0.25,
        le=4,
        description="resizes crops of any size to the input: 1 the whole crop, more its middle, less a black margin around it; null: crops "
        "must have the input's size",
    )
    split_ratio: float = Field(default=2.0, gt=0, le=8, description="bins per px of the crop that coordinates are read on")
    label_sigma_bins: float = Field(default=3.0, gt=0, description="standard deviation of a label's Gaussian, in bins")

    @model_validator(mode="before")
    @classmethod
    def _side_is_height_and_width(cls, values: Any) -> Any:
        side = values.get("input_side_px") if isinstance(values, dict) else None
        if side is None:
            return values
        for name in ("input_height_px", "input_width_px"):
            if values.get(name, side) != side:
                raise ValueError(f"model.input_side_px {side} and model.{name} {values[name]}: give one of them")
        return {**values, "input_height_px": side, "input_width_px": side}

    @model_validator(mode="after")
    def _settings_fit_backbone_and_head(self) -> Self:
        backbone, name = backbone_traits(self.backbone), self.backbone
        problem = self._foreign_problem(backbone) if backbone.is_foreign else self._own_problem(backbone)
        problem = problem or self._keypoints_problem(backbone)
        if problem is not None:
            raise ValueError(problem)
        if not HEADS.get(self.head).has_sharpness and self.marginal_sharpness != 1.0:
            raise ValueError(
                f"model.marginal_sharpness belongs to model.head marginal, fpn2d, linear2d and keypoints, given head {self.head}"
            )
        if self.input_whitening != "none" and self.head_start != "random":
            raise ValueError(f"model.input_whitening is for heads that start at random: leave it out for head_start {self.head_start}")
        if self.position_prior != "none" and self.head_start != "random":
            raise ValueError(f"model.position_prior is for heads that start at random: leave it out for head_start {self.head_start}")
        layers = HEADS.get(self.head).layers
        if layers and self.feature_layers != layers:
            raise ValueError(f"model.head {self.head} reads model.feature_layers [{', '.join(layers)}], in this order")
        if policy_of(self.freeze).last_stage and not backbone.is_foreign and not backbone.has_late:
            raise ValueError(f"model.freeze {self.freeze} needs a last block to train, backbone {name} has none; give backbone or none")
        return self

    def _own_problem(self, backbone: Backbone) -> str | None:
        if backbone.takes_weights and (self.weights is None or not self.feature_layers):
            return f"model.backbone {self.backbone} needs model.weights and model.feature_layers"
        if not backbone.takes_weights and (self.weights is not None or self.feature_layers or self.head_start != "random"):
            return "model.weights, model.feature_layers and model.head_start belong to model.backbone folded"
        if not backbone.takes_weights and self.feature_stride_px != 8:
            return "model.feature_stride_px belongs to model.backbone folded"
        if self.batch_norm != "fold" or self.weights_left_out:
            return "model.batch_norm and model.weights_left_out belong to model.backbone timm:NAME and module:FUNCTION"
        return None

    def _keypoints_problem(self, backbone: Backbone) -> str | None:
        reads = HEADS.get(self.head).reads_keypoints
        if backbone.gives_keypoints != reads:
            return f"model.backbone {self.backbone} and model.head {self.head}: backbone keypoints and head keypoints belong together"
        if (self.asked is not None or self.asked_for_training is not None) and not reads:
            return f"model.asked and model.asked_for_training belong to model.backbone keypoints, given {self.backbone}"
        if reads and self.freeze != "backbone":
            return f"model.backbone keypoints stays as it is: give model.freeze backbone, given {self.freeze}"
        return None

    def _foreign_problem(self, backbone: Backbone) -> str | None:
        if self.weights == TIMM_WEIGHTS and backbone != TIMM:
            return f"model.weights {TIMM_WEIGHTS} belongs to model.backbone timm:NAME; give a .safetensors or .pth file"
        if self.feature_stride_px != 8:
            return "model.feature_stride_px belongs to model.backbone folded"
        if self.weights is None and self.weights_left_out:
            return "model.weights_left_out needs model.weights"
        if self.feature_layers and not backbone.has_layers:
            return f"model.feature_layers: backbone {self.backbone} gives its maps itself; leave it out"
        return "model.head_start heatmap belongs to model.backbone folded" if self.head_start != "random" else None

    @property
    def starts_at_random(self) -> bool:
        """Whether public weights and the public stage are left out, whatever they say."""
        return policy_of(self.freeze).random_start
