"""Runs a network forward and back to the outputs of its layers, and hands each layer what it needs for its rows.

Weights take no gradient in the pass: a plain backward pass would compute their sum over the batch, 27 % of a step, for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dpcore.errors import BadInput
from dpcore.gradients.batch import Batch
from dpcore.gradients.layer_rules import RULES, Call, RowRule, RowsByName, module_rows
from dpcore.gradients.way import TrainedModule

_READS_ITS_CHILDREN = (nn.MultiheadAttention,)
"""They use the weights of their layers without those layers' forward."""


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """A module with trained parameters, the rule for their rows, and where their columns are.

    Args:
        module: the layer.
        rule: gives its rows.
        names: of the trained parameters, as the module knows them.
        columns: name -> (first column, shape).
        scales: name -> scale of the parameter, 1 where it has none.
        is_copied: the parameter itself is given to each example as a copy; the module has no call.
    """

    module: nn.Module
    rule: RowRule
    names: frozenset[str]
    columns: Mapping[str, tuple[int, torch.Size]]
    scales: Mapping[str, float]
    is_copied: bool = False

    @property
    def size(self) -> int:
        """Trained numbers."""
        return sum(shape.numel() for _, shape in self.columns.values())

    def rows(self, calls: Sequence[Call], some: slice) -> RowsByName:
        """Rows (c, *shape) of the chosen records in units of the scales, added up over the calls."""
        total = self.rule(self.module, calls[0], some, self.names)
        for call in calls[1:]:
            for name, more in self.rule(self.module, call, some, self.names).items():
                total[name] = total[name] + more
        return self.scaled(total)

    def scaled(self, rows: RowsByName) -> RowsByName:
        """Gradients with respect to the parameters, in units of their scales."""
        return {name: part if self.scales[name] == 1.0 else part * self.scales[name] for name, part in rows.items()}


def layers_of(trained: TrainedModule, *, copies: bool, inherited: bool) -> list[TrainedLayer]:
    """The layers of a network, such that every trained parameter is in one of them.

    Args:
        trained: the network.
        copies: gives a bare parameter of shape (1, ...), such as a position embedding, to each example as its own copy.
        inherited: takes the rule of a layer's base class for it.

    Raises:
        BadInput: a parameter belongs to two layers, so that its rows are not those of either.
    """
    starts, column = {}, 0
    for _, parameter in trained.named:
        starts[parameter] = column, parameter.shape
        column += parameter.numel()
    layers: list[TrainedLayer] = []
    taken: set[nn.Parameter] = set()
    inside: set[nn.Module] = set()
    for module in trained.module.modules():
        if module in inside:
            continue
        whole = isinstance(module, _READS_ITS_CHILDREN)
        inside |= set(module.modules()) if whole else set()
        own = {name: p for name, p in module.named_parameters(recurse=whole, remove_duplicate=False) if p in starts}
        if taken & set(own.values()) or len(set(own.values())) < len(own):
            raise BadInput("a parameter belongs to two layers")
        taken |= set(own.values())
        has_children = next(module.children(), None) is not None and not whole
        for names in _split(own, copied=copies and has_children):
            columns = {name: starts[own[name]] for name in names}
            is_copied = copies and has_children and own[names[0]].shape[0] == 1
            rule = copied_rows if is_copied else _rule_of(module, names, inherited=inherited)
            scales = {name: trained.scale_of[own[name]] for name in names}
            layers.append(TrainedLayer(module, rule, frozenset(names), columns, scales, is_copied))
    return layers


def _rule_of(module: nn.Module, names: Iterable[str], *, inherited: bool) -> RowRule:
    """Of the exact type or, where admitted, of the nearest base class, if all names are of a layer that has a weight and a bias."""
    if inherited and {*names} <= {"weight", "bias"}:
        return next((RULES[base] for base in type(module).__mro__ if base in RULES), module_rows)
    return RULES.get(type(module), module_rows)


def _split(own: Mapping[str, nn.Parameter], *, copied: bool) -> list[list[str]]:
    """The copied parameters one by one, all others together."""
    alone = [[name] for name, p in own.items() if copied and p.dim() > 0 and p.shape[0] == 1]
    rest = [name for name in own if [name] not in alone]
    return [*alone, *([rest] if rest else [])]


def copied_rows(layer: nn.Module, call: Call, some: slice, wanted: frozenset[str]) -> RowsByName:
    """Rows of a parameter that each example had a copy of: the gradients of the copies."""
    (name,) = wanted
    return {name: call.backprop_of(some).sum(dim=0)}


Consumer = Callable[[TrainedLayer, list[Call]], None]
"""Told once a pass of each layer, as soon as the backprops of all its calls are known."""


@dataclass(eq=False)
class _Pass:
    """One forward and backward pass."""

    entries: int
    records: int
    consume: Consumer
    is_forward: bool = True
    calls: dict[TrainedLayer, list[Call]] = field(default_factory=dict)
    waiting: dict[TrainedLayer, int] = field(default_factory=dict)
    held: int = 0
    largest: int = 0

    def add(self, layer: TrainedLayer, call: Call, output: Tensor) -> None:
        self.calls.setdefault(layer, []).append(call)
        self.held += call.inputs.numel() + output.numel()
        self.largest = max(self.largest, call.inputs.numel(), output.numel())
        self.waiting[layer] = self.waiting.get(layer, 0) + 1
        output.register_hook(lambda backprop: self.arrived(layer, call, backprop))  # type: ignore[no-untyped-call]

    def arrived(self, layer: TrainedLayer, call: Call, backprop: Tensor) -> None:
        call.backprop = backprop.detach()
        self.waiting[layer] -= 1
        if self.waiting[layer] == 0:
            self.consume(layer, self.calls.pop(layer))

    def finish(self) -> None:
        """Calls whose output nothing used have no part in the loss."""
        for layer in list(self.calls):
            reached = [call for call in self.calls.pop(layer) if call.backprop is not None]
            if reached:
                self.consume(layer, reached)


class Tape:
    """Hooks on the layers of a network, which sleep outside a pass.

    Attributes:
        layers: of the trained parameters.
        held: numbers in all inputs and outputs of these layers, in the last pass.
        largest_map: numbers in the largest of them.
    """

    def __init__(self, trained: TrainedModule, *, copies: bool, inherited: bool) -> None:
        self._trained = trained
        self._parameters = [p for _, p in trained.named]
        self.layers = layers_of(trained, copies=copies, inherited=inherited)
        self.held, self.largest_map = 0, 0
        self._pass: _Pass | None = None
        self._handles = [
            layer.module.register_forward_hook(self._watcher(layer), with_kwargs=True) for layer in self.layers if not layer.is_copied
        ]

    def run(self, batches: Sequence[Batch], entry_weights: tuple[float, ...], consume: Consumer) -> Tensor:
        """One pass. Returns the losses (B,) of the records' first entries.

        Args:
            batches: all entries in one batch, first entries first, or a batch for each entry. The network runs once for each batch.
            entry_weights: (h,) of the entries.
            consume: takes the layers' calls.
        """
        entries = len(entry_weights) // len(batches)
        records = len(batches[0]) // entries
        now = self._pass = _Pass(entries, records, consume)
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        try:
            losses = torch.cat([self._trained.losses(batch, self._copies(now, len(batch))) for batch in batches])
            now.is_forward = False
            self.held, self.largest_map = now.held, now.largest
            weights = torch.tensor(entry_weights, dtype=losses.dtype, device=losses.device).repeat_interleave(records)
            if losses.requires_grad:
                (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
            now.finish()
            return losses[:records].detach()
        finally:
            self._pass = None
            for parameter in self._parameters:
                parameter.requires_grad_(True)

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _copies(self, now: _Pass, count: int) -> dict[str, Tensor]:
        """A copy of each copied parameter for every example, by its name in the network."""
        names = {parameter: name for name, parameter in self._trained.named}
        copies = {}
        for layer in (one for one in self.layers if one.is_copied):
            (own,) = layer.names
            parameter = layer.module.get_parameter(own)
            copy = parameter.detach().expand(count, *parameter.shape[1:]).requires_grad_()
            now.add(layer, Call(copy, ((), {}), now.entries, now.records), copy)
            copies[names[parameter]] = copy
        return copies

    def _watcher(self, layer: TrainedLayer) -> Callable[..., None]:
        reads_inputs = layer.rule is module_rows or layer.names != {"bias"}

        def watch(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            now = self._pass
            if now is None or not now.is_forward:
                return
            first, *others = args
            result = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not isinstance(result, Tensor):
                raise BadInput(f"{type(module).__name__} takes or gives no tensor first")
            if not result.requires_grad:
                result.requires_grad_()
            inputs = first.detach() if reads_inputs else first.detach()[:, :0] if first.dim() > 1 else first.detach()
            call = Call(inputs, (tuple(others), kwargs), now.entries, now.records, _statistics(result), version=first._version)
            now.add(layer, call, result)

        return watch


def _statistics(output: Tensor) -> tuple[Tensor, ...]:
    """Mean and reciprocal deviation that torch keeps for the backward pass of a norm; nothing where it keeps none."""
    node = output.grad_fn
    if type(node).__name__ not in ("NativeGroupNormBackward0", "NativeLayerNormBackward0"):
        return ()
    return node._saved_result1.detach(), node._saved_result2.detach()  # type: ignore[union-attr]
