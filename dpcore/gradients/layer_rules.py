"""Rows of one layer's parameters from what went into the layer and what came back to its output.

Shapes: h entries of a record in the batch, B records, c of them at a time, n parts of an entry (attention windows lie in the batch
dimension), T positions. A layer's input is (h·B·n, ...): first entries of all records first, parts of an entry side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpcore.gradients.vectorise import over_records

RowsByName = dict[str, Tensor]
"""Parameter name -> (c, *shape of the parameter)."""


@dataclass(eq=False)
class Call:
    """One call of a layer.

    Args:
        inputs: what went in, (h·B·n, ...).
        others: further arguments by position and by name.
        entries: h.
        records: B.
        statistics: mean and reciprocal deviation that a norm computed, where torch kept them.
        backprop: the gradient of the weighted loss with respect to the output, once it is known.
    """

    inputs: Tensor
    others: tuple[tuple[object, ...], Mapping[str, object]]
    entries: int
    records: int
    statistics: tuple[Tensor, ...] = ()
    backprop: Tensor | None = None
    version: int = field(default=0)

    def input_of(self, some: slice) -> Tensor:
        """(h, c, n, ...) in float32 or better.

        Raises:
            RuntimeError: the network has overwritten it since.
        """
        if self.inputs._version != self.version:
            raise RuntimeError("the input of a layer was changed in place after the layer had read it")
        return self.by_record(self.inputs, some)

    def backprop_of(self, some: slice) -> Tensor:
        """(h, c, n, ...) in float32 or better."""
        if self.backprop is None:
            raise RuntimeError("no gradient has reached this call of the layer")
        return self.by_record(self.backprop, some)

    def by_record(self, tensor: Tensor, some: slice) -> Tensor:
        """The chosen records of (h·B·n, ...), as (h, c, n, ...)."""
        if len(tensor) % (self.entries * self.records):
            raise RuntimeError(f"{len(tensor)} is no multiple of the {self.entries * self.records} examples: whose parts are they?")
        parts = tensor.reshape(self.entries, self.records, -1, *tensor.shape[1:])[:, some]
        return parts.to(torch.float32) if parts.dtype in (torch.bfloat16, torch.float16) else parts


RowRule = Callable[[nn.Module, Call, slice, frozenset[str]], RowsByName]
"""(layer, call, records, names of the trained parameters) -> their rows."""


def linear_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """Σ over positions of backprop ⊗ input."""
    back = call.backprop_of(some).flatten(2, -2)
    rows = {"bias": back.sum(dim=(0, 2))} if "bias" in wanted else {}
    if "weight" in wanted:
        inputs = call.input_of(some).flatten(2, -2)
        rows["weight"] = _summed_products(back.transpose(2, 3), inputs)
    return rows


def _summed_products(left: Tensor, right: Tensor) -> Tensor:
    """Σ over h of left (h, c, o, T) · right (h, c, T, i): (c, o, i)."""
    total = torch.bmm(left[0], right[0])
    for one, other in zip(left[1:], right[1:], strict=True):
        total.baddbmm_(one, other)
    return total


def convolution_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """The backward pass of a convolution whose groups are the records gives one weight gradient a record, at kernel speed."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"{type(layer).__name__} is no convolution")
    back = call.backprop_of(some)
    rows = {"bias": back.flatten(4).sum(dim=(0, 2, 4))} if "bias" in wanted else {}
    if "weight" not in wanted:
        return rows
    maps, records = call.input_of(some), back.shape[1]
    if _is_a_gain(layer):
        rows["weight"] = (back * maps).flatten(4).sum(dim=(0, 2, 4)).view(records, *layer.weight.shape)
        return rows
    if max(layer.kernel_size) == max(layer.stride) == layer.groups == 1 and not any(_padding(layer)):
        flat = [tensor.flatten(4).transpose(2, 3).flatten(3) for tensor in (back, maps)]
        rows["weight"] = _summed_products(flat[0], flat[1].transpose(2, 3)).view(records, *layer.weight.shape)
        return rows
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and back[0, 0, 0, 0].numel() <= layer.in_channels:
        rows["weight"] = _patch_products(layer, back, maps)
        return rows
    maps, padding = _padded(layer, maps.transpose(1, 2).flatten(0, 1).flatten(1, 2))
    size = (records * layer.out_channels, *layer.weight.shape[1:])
    found = torch.ops.aten.convolution_backward(
        back.transpose(1, 2).flatten(0, 1).flatten(1, 2),
        maps,
        maps.new_empty(1).expand(size),  # only its shape is read
        None,
        layer.stride,
        padding,
        layer.dilation,
        False,
        [0] * len(padding),
        layer.groups * records,
        (False, True, False),
    )[1]
    rows["weight"] = found.view(records, *layer.weight.shape)
    return rows


def _patch_products(layer: nn.Conv2d, back: Tensor, maps: Tensor) -> Tensor:
    """Backprops times patches whose channels lie innermost: twice as fast as the kernel where maps are small and channels many.

    Args:
        layer: of one group.
        back, maps: (h, c, n, C, H, W).

    Returns:
        (c, *shape of the weight), a view of rows whose input channels lie innermost.
    """
    entries, records, parts = maps.shape[:3]
    padded, rest = _padded(layer, maps.flatten(0, 2))
    inner = functional.pad(padded, [side for amount in reversed(rest) for side in (amount, amount)]).permute(0, 2, 3, 1).contiguous()
    _, height, width, channels = inner.shape
    (rows, columns), (tall, wide) = back.shape[-2:], layer.kernel_size
    (down, right), (apart_y, apart_x) = layer.stride, layer.dilation
    patches = inner.as_strided(
        (len(inner), rows, columns, tall, wide, channels),
        (height * width * channels, down * width * channels, right * channels, apart_y * width * channels, apart_x * channels, 1),
    )
    flat = patches.reshape(entries, records, parts * rows * columns, tall * wide * channels)
    found = _summed_products(back.transpose(2, 3).flatten(3), flat)
    return found.view(records, layer.out_channels, tall, wide, channels).permute(0, 1, 4, 2, 3)


def _is_a_gain(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Whether it multiplies each channel by a number."""
    channels = layer.in_channels == layer.out_channels == layer.groups
    return channels and max(layer.kernel_size) == max(layer.stride) == 1 and not any(_padding(layer))


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """What is added on both sides of each dimension, (left, right) of the last one first, as `functional.pad` takes it."""
    sides = []
    for dimension in reversed(range(len(layer.kernel_size))):
        total = layer.dilation[dimension] * (layer.kernel_size[dimension] - 1)
        if layer.padding == "same":
            sides += [total // 2, total - total // 2]
        else:
            amount = 0 if isinstance(layer.padding, str) else layer.padding[dimension]
            sides += [amount, amount]
    return sides


def _padded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, maps: Tensor) -> tuple[Tensor, list[int]]:
    """(N, c·C, ...) maps as the kernel reads them, and the zeros that it adds itself."""
    sides = _padding(layer)
    symmetric = sides[::2] == sides[1::2]
    if layer.padding_mode == "zeros" and symmetric:
        return maps, sides[::2][::-1]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(maps, sides, mode=mode), [0] * (len(sides) // 2)


def group_norm_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """The backward pass of a group norm with the records beside each other as channels gives one gain and bias a record."""
    if not isinstance(layer, nn.GroupNorm):
        raise TypeError(f"{type(layer).__name__} is no group norm")
    back = call.backprop_of(some)
    rows: RowsByName = {"bias": back.flatten(4).sum(dim=(0, 2, 4))} if wanted == {"bias"} else {}
    if "weight" not in wanted:
        return rows
    maps, groups = call.input_of(some), layer.num_groups
    records, channels, positions = maps.shape[1], maps.shape[3], maps[0, 0, 0, 0].numel()
    maps, back = (tensor.transpose(1, 2).flatten(0, 1).flatten(1, 2).contiguous() for tensor in (maps, back))
    mean, scale = _group_statistics(layer, call, some, maps)
    sizes = (len(maps), records * channels, positions, records * groups)
    ones = maps.new_ones(records * channels)
    found = torch.ops.aten.native_group_norm_backward(back, maps, mean, scale, ones, *sizes, (False, True, True))
    return {name: one.view(records, channels) for name, one in (("weight", found[1]), ("bias", found[2])) if name in wanted}


def _group_statistics(layer: nn.GroupNorm, call: Call, some: slice, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation (N, c·groups) of maps (N, c·C, ...): those of the forward pass, or computed again."""
    groups, count = layer.num_groups, len(maps)
    if len(call.statistics) == 2 and call.statistics[0].shape == (len(call.inputs), groups):
        parts = [call.by_record(one, some).transpose(1, 2).reshape(count, -1) for one in call.statistics]
        return parts[0].to(maps.dtype), parts[1].to(maps.dtype)
    variance, mean = torch.var_mean(maps.reshape(count, -1, maps[0].numel() // (groups * (some.stop - some.start))), dim=2, correction=0)
    return mean, torch.rsqrt(variance + layer.eps)


def layer_norm_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """Σ over positions of backprop × normalised input, and of backprop."""
    if not isinstance(layer, nn.LayerNorm):
        raise TypeError(f"{type(layer).__name__} is no layer norm")
    inner = len(layer.normalized_shape)
    back = call.backprop_of(some)
    back = back.reshape(*back.shape[:2], -1, *back.shape[back.dim() - inner :])
    rows = {"bias": back.sum(dim=(0, 2))} if "bias" in wanted else {}
    if "weight" in wanted:
        inputs = call.input_of(some)
        mean, scale = _layer_statistics(layer, call, some, inputs)
        normal = ((inputs - mean) * scale).reshape(back.shape)
        rows["weight"] = normal.mul_(back).sum(dim=(0, 2))
    return rows


def _layer_statistics(layer: nn.LayerNorm, call: Call, some: slice, inputs: Tensor) -> tuple[Tensor, Tensor]:
    inner = len(layer.normalized_shape)
    if len(call.statistics) == 2 and call.statistics[0].dim() == call.inputs.dim():
        parts = [call.by_record(one, some).to(inputs.dtype) for one in call.statistics]
        return parts[0], parts[1]
    variance, mean = torch.var_mean(inputs, dim=tuple(range(-inner, 0)), correction=0, keepdim=True)
    return mean, torch.rsqrt(variance + layer.eps)


def embedding_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """The backprops of a record's positions, added up by index."""
    if not isinstance(layer, nn.Embedding) or layer.scale_grad_by_freq or layer.max_norm is not None:
        raise TypeError("this embedding changes its weight, or divides by how often an index comes")
    back, places = call.backprop_of(some), call.input_of(some)
    records, width = back.shape[1], back.shape[-1]
    back = back.transpose(0, 1).reshape(records, -1, width)
    places = places.transpose(0, 1).reshape(records, -1)
    if layer.padding_idx is not None:
        back = torch.where((places == layer.padding_idx)[..., None], torch.zeros((), dtype=back.dtype, device=back.device), back)
    rows = back.new_zeros(records, *layer.weight.shape)
    return {"weight": rows.scatter_add_(1, places[..., None].expand_as(back), back)}


def module_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """Any module: its own backward pass, run again for each record alone by `torch.func`.

    For bare parameters (attention biases, scales, low-rank matrices) and for layers without a rule. Tensors among the other arguments
    that are as long as the input are cut into records with it.
    """
    parameters = {name: layer.get_parameter(name).detach() for name in wanted}
    arguments, named = call.others
    cut = [call.by_record(one, some) for one in arguments if isinstance(one, Tensor) and _is_led_by(one, call)]

    def dot(weights: dict[str, Tensor], back: Tensor, inputs: Tensor, *others: Tensor) -> Tensor:
        led = iter(others)
        given = [next(led).flatten(0, 1) if _is_led_by(one, call) else one for one in arguments]
        output = torch.func.functional_call(layer, weights, (inputs.flatten(0, 1), *given), dict(named))
        output = output[0] if isinstance(output, tuple) else output
        total: Tensor = (output * back.flatten(0, 1)).sum()
        return total

    given_to = (parameters, call.backprop_of(some), call.input_of(some), *cut)
    found: RowsByName = over_records(torch.func.grad(dot), *given_to, in_dims=(None, 1, 1, *(1 for _ in cut)))
    return found


def _is_led_by(argument: object, call: Call) -> bool:
    return isinstance(argument, Tensor) and argument.dim() > 0 and len(argument) == len(call.inputs)


RULES: dict[type[nn.Module], RowRule] = {
    nn.Linear: linear_rows,
    nn.Conv1d: convolution_rows,
    nn.Conv2d: convolution_rows,
    nn.Conv3d: convolution_rows,
    nn.GroupNorm: group_norm_rows,
    nn.LayerNorm: layer_norm_rows,
    nn.Embedding: embedding_rows,
}
"""By exact type: a subclass may compute something else, and goes through `module_rows`."""
