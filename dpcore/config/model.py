"""The network of a trial and what of it is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dpcore.config.networks import BACKBONES, HEADS
from dpcore.config.parsing import Part


class ModelConfig(Part):
    """The network. `freeze` names what stays fixed after public pretraining: `backbone` trains the head alone,
    `early` also the last block, `none` everything."""

    backbone: Annotated[str, AfterValidator(BACKBONES.checked)] = "small"
    weights: str | None = Field(default=None, description="folded network: folder/stem below the data directory, without _fp16.npz")
    feature_layers: tuple[str, ...] = Field(default=(), description="folded network: maps that are resized and concatenated")
    head: Annotated[str, AfterValidator(HEADS.checked)] = "marginal"
    head_start: Literal["random", "heatmap"] = "random"
    freeze: Literal["none", "early", "backbone"] = "early"
    input_height_px: int = Field(default=64, ge=16)
    input_width_px: int = Field(default=64, ge=16)
    marginal_sharpness: float = Field(default=1.0, gt=0, description="β of the marginal head's (1/β)·log-mean-exp(β·)")
    split_ratio: float = Field(default=2.0, gt=0, le=8)
    label_sigma_bins: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _settings_fit_backbone_and_head(self) -> Self:
        backbone, name = BACKBONES.get(self.backbone), self.backbone
        if backbone.takes_weights and (self.weights is None or not self.feature_layers):
            raise ValueError(f"model.backbone {name} needs model.weights and model.feature_layers")
        if not backbone.takes_weights and (self.weights is not None or self.feature_layers or self.head_start != "random"):
            raise ValueError("model.weights, model.feature_layers and model.head_start belong to model.backbone folded")
        if not HEADS.get(self.head).has_sharpness and self.marginal_sharpness != 1.0:
            raise ValueError("model.marginal_sharpness belongs to model.head marginal")
        if not backbone.has_late and self.freeze == "early":
            raise ValueError(f"model.freeze early needs a last block to train, backbone {name} has none; give backbone or none")
        return self
