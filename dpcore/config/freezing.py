"""What of a network trains: named policies, and a rule by layer name and kind. Torch-free.

The head always trains. Kinds: `bias` (every bias), `gain` (the weight of every norm), `norm` (gain and bias of every norm).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from dpcore.config.parsing import UNKNOWN_NAME, Part

KINDS = ("bias", "gain", "norm")


class FreezeRule(Part):
    """What trains beside the head, by name and kind.

    `train` lists kinds and layers (`stages.3`, or a pattern such as `*.qkv`). `from` names the first of the layers that train whole, up to
    the last one. `lora: r` adds to every linear map and 1x1 convolution two matrices of rank r (Hu et al., ICLR 2022), which train in place
    of its weights; with `from` as well it does so from that layer on, and nothing else of those layers trains.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    train: tuple[str, ...] = Field(default=(), description="kinds (bias, gain, norm), layers, and patterns of layers")
    from_: str | None = Field(default=None, alias="from", description="the first of the layers that train whole")
    lora: int | None = Field(default=None, ge=1, description="rank of the two matrices that train in place of a layer's weights")

    @model_validator(mode="after")
    def _says_something(self) -> FreezeRule:
        if not self.train and self.from_ is None and self.lora is None:
            raise ValueError("freeze: give at least one of train, from and lora, or the policy backbone")
        return self


@dataclass(frozen=True, kw_only=True)
class FreezePolicy:
    """What trains beside the head.

    Attributes:
        everything: the whole network.
        last_stage: the last stage of the backbone.
        kinds: parameters of these kinds, wherever they are.
        random_start: the network starts as its seed draws it: public weights and the public stage are left out.
        layers: names or patterns of layers. first_layer: from here on everything, or with `lora` its low-rank matrices.
        lora: their rank.
    """

    everything: bool = False
    last_stage: bool = False
    kinds: tuple[str, ...] = ()
    random_start: bool = False
    layers: tuple[str, ...] = ()
    first_layer: str | None = None
    lora: int | None = None


POLICIES: Mapping[str, FreezePolicy] = {
    "none": FreezePolicy(everything=True),
    "early": FreezePolicy(last_stage=True),
    "backbone": FreezePolicy(),
    "ft": FreezePolicy(last_stage=True, kinds=("norm",)),
    "full_ft": FreezePolicy(everything=True),
    "scratch": FreezePolicy(everything=True, random_start=True),
    "norms": FreezePolicy(kinds=("norm",)),
    "gains": FreezePolicy(kinds=("gain",)),
    "biases": FreezePolicy(kinds=("bias",)),
}
"""`ft`, `full_ft` and `scratch` are the strategies of Sivangi et al. (CVPR 2026)."""


def _known(name: str) -> str:
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        every = f"expected one of {', '.join(POLICIES)}, or a mapping with train, from or lora"
        problem = f"unknown policy {name}; " + (f"did you mean {near[0]}? ({every})" if near else every)
        raise PydanticCustomError(UNKNOWN_NAME, "{problem}", {"problem": problem})
    return name


def _form(value: Any) -> str:
    return "policy" if isinstance(value, str) else "rule"


Freeze = Annotated[
    Annotated[str, AfterValidator(_known), Tag("policy")] | Annotated[FreezeRule, Tag("rule")],
    Discriminator(_form),
]


def policy_of(freeze: str | FreezeRule) -> FreezePolicy:
    """What a config's `freeze` says."""
    if isinstance(freeze, str):
        return POLICIES[freeze]
    kinds = tuple(name for name in freeze.train if name in KINDS)
    layers = tuple(name for name in freeze.train if name not in KINDS)
    return FreezePolicy(kinds=kinds, layers=layers, first_layer=freeze.from_, lora=freeze.lora)
