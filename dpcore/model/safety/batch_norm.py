"""BatchNorm without batches: folded into the layer before it, with frozen statistics, or replaced by GroupNorm.

A BatchNorm that reads the statistics of a batch couples examples, and its running means are an unnoised release. In evaluation mode
it is a fixed affine map of each channel. That map can move into the convolution before it, or stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from dpcore.errors import Refused

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
_LARGEST_GROUPS = 32


class FrozenNorm(nn.Module):
    """A BatchNorm2d in evaluation mode: (x − mean)/√(var + eps) · gain + bias with a mean and a variance that never change.

    Gain and bias are the weights of a 1x1 convolution by channel, whose per-example gradients are known to every engine. They are the
    very parameters of the BatchNorm, so their gradients are its gradients too.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.affine = nn.Conv2d(channels, channels, 1, groups=channels)

    @classmethod
    def of(cls, norm: BatchNorm) -> FrozenNorm:
        """With the statistics, the gain and the bias of `norm`."""
        gain, bias, mean, variance = _numbers(norm)
        frozen = cls(norm.num_features)
        with torch.no_grad():
            frozen.scale.copy_((variance + norm.eps).rsqrt().view(-1, 1, 1))
            frozen.shift.copy_(-mean.view(-1, 1, 1) * frozen.scale)
            frozen.affine.weight.copy_(gain.view(-1, 1, 1, 1))
            frozen.affine.bias.copy_(bias)  # type: ignore[union-attr]
        return frozen

    def forward(self, maps: Tensor) -> Tensor:
        outputs: Tensor = self.affine(maps * self.scale + self.shift)
        return outputs


def batch_norms(network: nn.Module) -> dict[str, BatchNorm]:
    """Every BatchNorm by its name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)}


def layers_before(network: nn.Module, example: Tensor) -> dict[str, str]:
    """BatchNorm → the convolution or linear map whose output it reads, where that is all that either of them does.

    Seen in one pass of `example`: the tensor that enters the BatchNorm is the one that the layer returned, and each ran once. Whether
    something else reads the layer's output is not seen here: whoever folds compares the network's output afterwards.
    """
    makers: dict[int, str] = {}
    kept: list[Tensor] = []  # a tensor that is gone could give its id to another one
    found: dict[str, str] = {}
    runs: dict[str, int] = {}

    def made(name: str) -> None:
        runs[name] = runs.get(name, 0) + 1

    with _watched(network, makers, kept, found, made), torch.no_grad():
        network(example)
    used = list(found.values())
    return {norm: layer for norm, layer in found.items() if runs[norm] == runs[layer] == 1 and used.count(layer) == 1}


@contextmanager
def _watched(
    network: nn.Module, makers: dict[int, str], kept: list[Tensor], found: dict[str, str], made: Callable[[str], None]
) -> Iterator[None]:
    hooks = []
    for name, module in network.named_modules():
        if type(module) in (nn.Conv2d, nn.Linear):

            def after(_module: nn.Module, _inputs: object, output: Tensor, *, name: str = name) -> None:
                makers[id(output)] = name
                kept.append(output)
                made(name)

            hooks.append(module.register_forward_hook(after))
        elif isinstance(module, BATCH_NORMS):

            def before(_module: nn.Module, inputs: tuple[Tensor, ...], *, name: str = name) -> None:
                made(name)
                if id(inputs[0]) in makers:
                    found[name] = makers[id(inputs[0])]

            hooks.append(module.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def fold(network: nn.Module, pairs: Mapping[str, str]) -> None:
    """Moves each BatchNorm of `pairs` into its layer; an activation that the BatchNorm carried stays in its place."""
    norms = batch_norms(network)
    for norm_name, layer_name in pairs.items():
        norm, layer = norms[norm_name], network.get_submodule(layer_name)
        _take_in(layer, norm)
        replace(network, norm_name, _with_what_it_carried(nn.Identity(), norm))


def freeze_statistics(network: nn.Module, names: Iterable[str]) -> None:
    """Gives each named BatchNorm2d the statistics that it has now for ever.

    Raises:
        Refused: it is of another dimension, or keeps no statistics.
    """
    norms = batch_norms(network)
    for name in names:
        norm = norms[name]
        if not isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm):
            raise Refused(f"{name}: {type(norm).__name__} can be neither folded nor frozen; give model.batch_norm: group_norm")
        replace(network, name, _with_what_it_carried(FrozenNorm.of(norm), norm))


def use_group_norm(network: nn.Module, names: Iterable[str]) -> None:
    """Replaces each named BatchNorm by a GroupNorm with its gain and bias, in at most 32 groups (Wu and He, ECCV 2018)."""
    norms = batch_norms(network)
    for name in names:
        norm = norms[name]
        groups = next(count for count in range(min(_LARGEST_GROUPS, norm.num_features), 0, -1) if norm.num_features % count == 0)
        group_norm = nn.GroupNorm(groups, norm.num_features, eps=norm.eps)
        if norm.affine:
            with torch.no_grad():
                group_norm.weight.copy_(norm.weight)
                group_norm.bias.copy_(norm.bias)
        replace(network, name, _with_what_it_carried(group_norm, norm))


def replace(network: nn.Module, name: str, new: nn.Module) -> None:
    """Puts `new` in the place of the module of that name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)


def _take_in(layer: nn.Module, norm: BatchNorm) -> None:
    gain, bias, mean, variance = _numbers(norm)
    if isinstance(layer, nn.Conv2d):
        weight, shift = fuse_conv_bn_weights(layer.weight, layer.bias, mean, variance, norm.eps, gain, bias)
    elif isinstance(layer, nn.Linear):
        weight, shift = fuse_linear_bn_weights(layer.weight, layer.bias, mean, variance, norm.eps, gain, bias)
    else:
        raise Refused(f"a BatchNorm cannot be folded into a {type(layer).__name__}")
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(shift.detach().clone())


def _numbers(norm: BatchNorm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gain, bias, mean and variance (C,)."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise Refused("a BatchNorm keeps no statistics (track_running_stats=False); give model.batch_norm: group_norm")
    gain = norm.weight if norm.affine else torch.ones_like(mean)
    bias = norm.bias if norm.affine else torch.zeros_like(mean)
    return gain.detach(), bias.detach(), mean, variance


def _with_what_it_carried(new: nn.Module, norm: BatchNorm) -> nn.Module:
    """timm's BatchNormAct2d applies `drop` and `act` after the norm: they stay, in that order."""
    carried = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    carried = [part for part in carried if not isinstance(part, nn.Identity)]
    return nn.Sequential(new, *carried) if carried else new
