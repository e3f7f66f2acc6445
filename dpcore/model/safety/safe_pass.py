"""Makes a network from elsewhere safe for per-example gradients, and says what it did.

| found | what happens |
|---|---|
| BatchNorm | folded into the layer before it, frozen statistics, or GroupNorm: `model.batch_norm` |
| `inplace=True`, `x += y` in a forward | a new tensor instead |
| dropout, drop path | probability 0: a draw outside the trial's streams cannot be repeated |
| a parameter that the output does not depend on | stays fixed |
| anything else that differs in training mode | refused, by name |

Outputs in evaluation mode stay the same, but for GroupNorm. That is measured on an example, and a difference is refused. What a pass
over modules cannot see (a weight used beside its layer, padding that a gradient rule does not know) is left to
`dpcore.privacy.row_check`, which compares rows before the first private step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpcore.errors import Refused
from dpcore.model.safety.batch_norm import batch_norms, fold, freeze_statistics, layers_before, use_group_norm
from dpcore.model.safety.in_place import OutOfPlace, stop_in_place
from dpcore.model.safety.report import SafetyReport

BatchNormRule = Literal["fold", "group_norm", "frozen"]
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest of them. Folding rounds: 1e-6 was seen on TinyViT-5M and ResNet-18."""


@dataclass(frozen=True, kw_only=True)
class SafeNetwork:
    """A network after the pass. `out_of_place`: whether it must run within `OutOfPlace`."""

    module: nn.Module
    report: SafetyReport
    out_of_place: bool


def make_safe(network: nn.Module, example: Tensor, *, batch_norm: BatchNormRule, known: SafetyReport | None = None) -> SafeNetwork:
    """Changes `network` as the table of this module says; it is left in evaluation mode.

    Args:
        network: from images (B,3,H,W) to maps, or to a list of maps; not itself a BatchNorm.
        example: (2,3,H,W) images on which the outputs before and after are compared.
        batch_norm: what becomes of BatchNorms.
        known: of a saved model, what was done to it; then the same is done, so that the same modules come out.

    Raises:
        Refused: outputs differ afterwards, or training mode differs from evaluation mode; the modules are named.
    """
    network.eval()
    before = outputs_of(network, example)
    not_in_place, not_random = stop_in_place(network), _stop_drawing(network)
    network, report = _without_batch_norm(network, example, batch_norm, known)
    after = outputs_of(network, example)
    if not report.group_norms and difference(after, before) > TOLERANCE:
        raise Refused(f"the outputs changed by {difference(after, before):.1e} when this network was made safe; give another network")
    out_of_place, notes = _in_place_within(network, example, after)
    _refuse_training_mode(network, example, after)
    report = replace(
        report,
        not_in_place=not_in_place,
        not_random=not_random,
        unused=_unused(network, example, out_of_place=out_of_place),
        tied=_tied(network),
        notes=(*report.notes, *notes),
    )
    return SafeNetwork(module=network, report=report, out_of_place=out_of_place)


def outputs_of(network: nn.Module, example: Tensor) -> list[Tensor]:
    """The maps that it gives without gradients, as copies."""
    with torch.no_grad():
        return [maps.clone() for maps in _as_list(network(example))]


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, relative to the largest number wanted; inf where shapes differ."""
    if [maps.shape for maps in found] != [maps.shape for maps in wanted]:
        return float("inf")
    largest = max(float(maps.abs().max()) for maps in wanted)
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)) / max(largest, 1e-12)


def _as_list(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _without_batch_norm(
    network: nn.Module, example: Tensor, rule: BatchNormRule, known: SafetyReport | None
) -> tuple[nn.Module, SafetyReport]:
    names = tuple(batch_norms(network))
    if known is not None:
        fold(network, known.folded)
        freeze_statistics(network, known.frozen_statistics)
        use_group_norm(network, known.group_norms)
        return network, replace(known, notes=known.notes)
    if rule == "group_norm":
        use_group_norm(network, names)
        return network, SafetyReport(group_norms=names)
    pairs = layers_before(network, example) if rule == "fold" else {}
    folded = copy.deepcopy(network)
    fold(folded, pairs)
    if pairs and difference(outputs_of(folded, example), outputs_of(network, example)) > TOLERANCE:
        folded, pairs = network, {}  # something else reads what a layer gives its BatchNorm
    rest = tuple(name for name in names if name not in pairs)
    freeze_statistics(folded, rest)
    return folded, SafetyReport(folded=pairs, frozen_statistics=rest)


def _stop_drawing(network: nn.Module) -> tuple[str, ...]:
    """Sets every probability of dropping to 0: dropout layers, drop path, and the number that nn.MultiheadAttention keeps."""
    names = []
    for name, module in network.named_modules():
        for attribute in ("p", "drop_prob", "dropout"):
            value = getattr(module, attribute, None)
            dropping = attribute != "p" or isinstance(module, _DROPOUTS)
            if dropping and isinstance(value, float) and value > 0:
                setattr(module, attribute, 0.0)
                names.append(name)
    return tuple(names)


def _in_place_within(network: nn.Module, example: Tensor, wanted: list[Tensor]) -> tuple[bool, tuple[str, ...]]:
    with OutOfPlace() as mode:
        found = outputs_of(network, example)
    if mode.replaced == 0:
        return False, ()
    if difference(found, wanted) > TOLERANCE:
        return False, ("a forward writes into a tensor and reads it elsewhere: it is left as it is, and the check of rows decides",)
    return True, (f"{mode.replaced} operations of forwards like x += y now make a new tensor",)


def _refuse_training_mode(network: nn.Module, example: Tensor, wanted: list[Tensor]) -> None:
    """Checks that training mode computes what evaluation mode does and keeps nothing of a batch.

    Raises:
        Refused: it names the modules that differ.
    """
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    twice = [outputs_of(network, example) for _ in range(2)]
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, kept[name])]
    network.eval()
    if changed:
        raise Refused(
            f"in training mode this network keeps something of its batches: buffers {', '.join(changed[:3])}; freeze or remove it"
        )
    if max(difference(found, wanted) for found in twice) > TOLERANCE:
        names = ", ".join(sorted(_differing(network, example))[:3]) or "no single module"
        raise Refused(f"in training mode this network gives other outputs than in evaluation mode ({names}); make it the same in both")


def _differing(network: nn.Module, example: Tensor) -> Iterator[str]:
    """Names of modules without children whose output is another one in training mode, for the same input to the network."""
    found: dict[bool, dict[str, Tensor]] = {}
    for training in (False, True):
        outputs: dict[str, Tensor] = {}
        hooks = []
        for name, module in network.named_modules():
            if not list(module.children()):

                def kept(
                    _module: nn.Module, _inputs: object, output: object, *, name: str = name, into: dict[str, Tensor] = outputs
                ) -> None:
                    if isinstance(output, Tensor):
                        into[name] = output.clone()

                hooks.append(module.register_forward_hook(kept))
        network.train(training)
        outputs_of(network, example)
        for hook in hooks:
            hook.remove()
        found[training] = outputs
    network.eval()
    first = [name for name in found[False] if name in found[True] and difference([found[True][name]], [found[False][name]]) > TOLERANCE]
    yield from first[:1]


def _unused(network: nn.Module, example: Tensor, *, out_of_place: bool) -> tuple[str, ...]:
    """Parameters without a gradient, whatever the loss."""
    named = list(network.named_parameters())
    required = [p.requires_grad for _, p in named]
    for _, p in named:
        p.requires_grad_(True)
    if out_of_place:
        with OutOfPlace():
            outputs = _as_list(network(example[:1]))
    else:
        outputs = _as_list(network(example[:1]))
    total = sum(maps.sum() for maps in outputs)
    gradients = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)  # type: ignore[arg-type]
    for (_, p), was in zip(named, required, strict=True):
        p.requires_grad_(was)
    return tuple(name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None)


def _tied(network: nn.Module) -> tuple[str, ...]:
    own = {name for name, _ in network.named_parameters()}
    return tuple(name for name, _ in network.named_parameters(remove_duplicate=False) if name not in own)
