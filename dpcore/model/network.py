"""A pose network: a chain of named parts, splittable into a frozen stem and a trainable tail."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dpcore.config import ModelConfig, Places
from dpcore.config.freezing import FreezeRule, policy_of
from dpcore.errors import BadInput, Corrupt
from dpcore.model.backbones import initialise
from dpcore.model.built import BuiltBackbone, build_backbone
from dpcore.model.folded import FoldedFeatures
from dpcore.model.folded_halves import halves
from dpcore.model.freezing import HEAD, PRIOR, WHITENING, freeze_module, names_from, stem_length, trained_names
from dpcore.model.head import HeadShape, MarginalHead, build_head
from dpcore.model.head_start import start_from_heat_maps
from dpcore.model.low_rank import LowRank, add_low_rank
from dpcore.model.maps.prior import PositionPrior
from dpcore.model.maps.whitening import Whitening
from dpcore.model.safety.in_place import Chain, elsewhere
from dpcore.pose.codec import SimCCCodec
from dpcore.pose.skeleton import MPII_16, Skeleton


@dataclass(frozen=True)
class SplitNetwork:
    """One network seen as two: `stem` fixed, in evaluation mode, without gradients; `tail` trains. They share their
    tensors with the network they came from. `stem_is_empty` where nothing is frozen: features are then the images. `code` names what of it
    is not dpsweep's."""

    stem: nn.Module
    tail: nn.Module
    stem_is_empty: bool
    code: Mapping[str, str] = field(default_factory=dict)


class PoseNetwork(nn.Module):
    """Images (B,3,H,W) in [-1, 1] to the outputs of its head, as `dpcore.inference.readouts` reads them; of a SimCC head logits over
    x bins (B,K,Wx) and y bins (B,K,Wy)."""

    def __init__(self, parts: Mapping[str, nn.Module], *, backbone: BuiltBackbone, skeleton: Skeleton = MPII_16) -> None:
        """From its parts, those of `backbone` and a head for the joints of `skeleton`."""
        super().__init__()
        self.skeleton = skeleton
        self.document = backbone.document
        self.code = backbone.code
        self.says = backbone.says
        self._unused = backbone.unused
        self._last_layer = backbone.last_layer
        self._head_layers = backbone.head_layers
        self._out_of_place = backbone.out_of_place
        self.parts = nn.ModuleDict(dict(parts))

    def forward(self, images: Tensor) -> Any:
        outputs: Any = images
        with elsewhere(self._out_of_place):
            for part in self.parts.values():
                outputs = part(outputs)
        return outputs

    def split(self, freeze: str | FreezeRule) -> SplitNetwork:
        """The network as stem and tail under a freezing policy; sets which parameters require gradients.

        Raises:
            BadInput: the policy means nothing for this network.
        """
        parts = dict(self.parts.items())
        trained = trained_names(parts, freeze, unused=self._unused, last_layer=self._last_layer, head_layers=self._head_layers)
        modules, length = list(parts.values()), stem_length(parts, trained)
        before, behind = modules[:length], modules[length:]
        for name, part in list(parts.items())[length:]:
            for parameter_name, parameter in part.named_parameters(name):
                parameter.requires_grad_(parameter_name in trained)
        if not before and isinstance(behind[0], FoldedFeatures):
            cut = halves(behind[0], [name for name, parameter in behind[0].named_parameters() if parameter.requires_grad])
            if cut is not None:
                before, behind = [cut[0]], [cut[1], *behind[1:]]
        stem, tail = freeze_module(self._chain(before)), self._chain(behind)
        return SplitNetwork(stem=stem, tail=tail.train(), stem_is_empty=not before, code=self.code)

    def fit_whitening(self, images: Iterable[Tensor]) -> None:
        """Sets what the inputs of the head are whitened by from pictures (B,3,H,W) of PUBLIC data, at the weights of now."""
        parts = dict(self.parts.items())
        before = self._chain([part for name, part in parts.items() if name not in (WHITENING, HEAD, PRIOR)]).eval()
        whitening = parts[WHITENING]
        assert isinstance(whitening, Whitening)
        with torch.no_grad():
            whitening.fit(before(some) for some in images)

    def description(self, freeze: str | FreezeRule) -> list[str]:
        """What was loaded and changed, and how many parameters train: lines for people."""
        split = self.split(freeze)
        trained, every = (sum(p.numel() for p in module.parameters() if p.requires_grad or module is self) for module in (split.tail, self))
        cached = sum(p.numel() for p in split.stem.parameters())
        behind = f"; the first {cached:,} are a stem whose features are computed once" if cached else ""
        return [*self.says, f"{trained:,} of {every:,} parameters train (model.freeze {freeze}){behind}"]

    def _chain(self, modules: list[nn.Module]) -> Chain:
        return Chain(modules, out_of_place=self._out_of_place)


def codec_of(config: ModelConfig) -> SimCCCodec:
    """The SimCC codec that a model's input size and bins imply."""
    return SimCCCodec(
        height_px=config.input_height_px,
        width_px=config.input_width_px,
        split_ratio=config.split_ratio,
        label_sigma_bins=config.label_sigma_bins,
    )


def build_network(config: ModelConfig, places: Places, *, generator: torch.Generator, skeleton: Skeleton = MPII_16) -> PoseNetwork:
    """A new network for the joints of `skeleton`: public weights where the config names some, the rest drawn from `generator`.

    Raises:
        BadInput: weights, layers or sizes do not fit. Corrupt: the stored network is damaged.
    """
    with _drawn_from(generator):
        built = build_backbone(config, places)
    for name, part in built.parts.items():
        if name not in built.ready:
            initialise(part, generator)
    network = assemble_network(config, built, skeleton=skeleton)
    initialise(network.parts[HEAD], generator)
    for module in network.modules():
        if isinstance(module, LowRank):
            module.draw_weights(generator)
    head = network.parts[HEAD]
    if config.head_start == "heatmap":
        start_from_heat_maps(head, built.layers, skeleton)
    elif isinstance(head, MarginalHead):
        head.start_interpolating()
    return network


@contextmanager
def _drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's own generator is seeded as `generator` was, so that a network which draws its weights as it is made draws the same
    ones from the same seed. Afterwards it is where it was, and `generator` has not moved."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(generator.initial_seed())
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def assemble_network(config: ModelConfig, built: BuiltBackbone, *, skeleton: Skeleton = MPII_16) -> PoseNetwork:
    """A backbone with a head on it for the joints of `skeleton`, whose weights are not yet set.

    Raises:
        BadInput: the input size is no multiple of the backbone's stride.
    """
    stride_px = built.stride_px
    if config.input_height_px % stride_px or config.input_width_px % stride_px:
        raise BadInput(
            f"model.input_height_px {config.input_height_px} and input_width_px {config.input_width_px}: give multiples of {stride_px}"
        )
    codec = codec_of(config)
    shape = HeadShape(
        channels=built.channels,
        grid_height=config.input_height_px // stride_px,
        grid_width=config.input_width_px // stride_px,
        height_px=config.input_height_px,
        width_px=config.input_width_px,
        bins_x=codec.bins_x,
        bins_y=codec.bins_y,
        joints=skeleton.count,
        sharpness=config.marginal_sharpness,
        pyramid=built.pyramid,
        has_heat_maps=config.head_start == "heatmap",
        pyramid_channels=config.pyramid_channels,
        skeleton=skeleton,
    )
    policy, parts = policy_of(config.freeze), dict(built.parts)
    if policy.lora is not None:
        names = [f"{part}.{name}" for part, module in parts.items() for name, _ in module.named_parameters()]
        wanted = frozenset(names if policy.first_layer is None else names_from(names, policy.first_layer))
        add_low_rank(parts, policy.lora, wanted=wanted.__contains__)
    if config.input_whitening == "public":
        parts[WHITENING] = Whitening(built.channels, built.pyramid)
    parts[HEAD] = build_head(config.head, shape)
    if config.position_prior != "none":
        parts[PRIOR] = PositionPrior(skeleton.count)
    return PoseNetwork(parts, backbone=built, skeleton=skeleton)


def described(config: ModelConfig, places: Places, *, skeleton: Skeleton = MPII_16) -> list[str]:
    """What a network from elsewhere is made of and how much of it trains, for people; it is built for that.

    Raises:
        BadInput, Refused, Corrupt: as `build_network`.
    """
    network = build_network(config, places, generator=torch.Generator().manual_seed(0), skeleton=skeleton)
    return network.description(config.freeze)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Sets every weight of `module` from `state`; nothing is dropped and nothing is left over.

    Raises:
        Corrupt: names or shapes differ; the message names the first of them.
    """
    own = module.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in sorted(own.keys() & state.keys()) if own[name].shape != state[name].shape]
    if missing or surplus or shapes:
        raise Corrupt(f"{where}: weights do not fit the network (missing {missing[:3]}, unknown {surplus[:3]}, other shape {shapes[:3]})")
    module.load_state_dict(dict(state))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """32 hex digits of sha256 over names, shapes and bytes of a state, in name order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:32]
