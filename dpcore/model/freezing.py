"""Which parameters of a network train, and where its frozen beginning ends.

A network is a chain of named parts, the last of which is the head. The longest beginning of the chain in which nothing trains is the
stem: one function of the image, whose features are computed once and kept. What trains anywhere behind it gets per-example gradients.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from dpcore.config.freezing import FreezePolicy, FreezeRule, policy_of
from dpcore.errors import BadInput
from dpcore.model.gains import Gained
from dpcore.model.low_rank import LowRank
from dpcore.model.safety.batch_norm import BATCH_NORMS, FrozenNorm

HEAD, WHITENING, PRIOR = "head", "whitening", "prior"
"""Parts of the chain that are not the backbone's."""
_FOLDED_LAYERS = "early.convolutions."
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm2d, *BATCH_NORMS, FrozenNorm)


def trained_names(
    parts: Mapping[str, nn.Module],
    freeze: str | FreezeRule,
    *,
    unused: frozenset[str] = frozenset(),
    last_layer: str | None = None,
    head_layers: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """The parameters that train, by part and name.

    Args:
        parts: the chain; the head's part is `head`.
        freeze: as a config has it.
        unused: parameters that the output does not depend on; they never train.
        last_layer: the last stage of the backbone; None where that is its last part.
        head_layers: what trains with the head.

    Raises:
        BadInput: the policy means nothing for this network: it has one part only, no layer of a name, nothing of a kind.
    """
    policy, backbone = policy_of(freeze), tuple(name for name in parts if name not in (WHITENING, HEAD, PRIOR))
    chosen = {name for name, _ in _own(HEAD, parts[HEAD])} if HEAD in parts else set()
    if policy.everything:
        chosen |= {name for part in backbone for name, _ in _own(part, parts[part])}
    if policy.last_stage:
        chosen |= _last_stage(parts, backbone, last_layer, freeze)
    for kind in policy.kinds:
        found = {name for part in backbone for name, kinds in _kinds(part, parts[part]).items() if kind in kinds}
        if not found and not policy.last_stage:
            raise BadInput(f"freeze {freeze}: this backbone has no {kind}{'' if kind == 'bias' else _FOLDED}; give another policy")
        chosen |= found
    chosen |= _by_layer(parts, backbone, policy)
    if policy.lora is not None:
        chosen |= {name for part in backbone for name, _ in parts[part].named_parameters(part) if _in_adapter(parts[part], part, name)}
    return frozenset((chosen | head_layers) - unused)


def _last_stage(parts: Mapping[str, nn.Module], backbone: Sequence[str], last_layer: str | None, freeze: object) -> set[str]:
    if last_layer is not None:
        return {name for part in backbone for name, _ in _own(part, parts[part]) if matches(name, last_layer)}
    if len(backbone) < 2:
        raise BadInput(f"freeze {freeze}: this backbone has no last block of its own; give backbone (head alone trains) or none")
    return {name for name, _ in _own(backbone[-1], parts[backbone[-1]])}


_FOLDED = " of its own (a BatchNorm that is folded has none; model.batch_norm: frozen keeps it)"


def stem_length(parts: Mapping[str, nn.Module], trained: frozenset[str]) -> int:
    """How many parts at the beginning of the chain hold nothing that trains; 0 where they hold no parameter at all."""
    frozen, anything = 0, False
    for name, part in parts.items():
        own = [f"{name}.{p}" for p, _ in part.named_parameters()]
        if trained.intersection(own):
            break
        frozen, anything = frozen + 1, anything or bool(own)
    return frozen if anything else 0


def readable(name: str) -> str:
    """A parameter's name as a person writes it: `stages_3.blocks.0.norm.weight` → `stages.3.blocks.0.norm.weight`. Of a folded network: the
    layer's, with underscores for dots."""
    return re.sub(r"^([^.]*)_(\d+)(?=\.|$)", r"\1.\2", re.sub(r"^(network\.network\.(model\.)?|early\.convolutions\.)", "", name))


def matches(name: str, layer: str) -> bool:
    """Whether a parameter lies in the layer of that name, or is meant by that pattern: of it, or of a module that it lies in."""
    folded = name.startswith(_FOLDED_LAYERS)
    wanted = {layer, layer.replace(".", "_")} if folded else {layer}
    shown = {readable(name), name} if folded else {readable(name)}
    within = {".".join(one.split(".")[:depth]) for one in shown for depth in range(1, one.count(".") + 2)}
    return any(fnmatchcase(place, one) for place in within for one in wanted)


def names_from(names: Sequence[str], layer: str) -> list[str]:
    """`names` from the first one in `layer` on, in the order of the chain.

    Raises:
        BadInput: there is no such layer; the message lists the outer ones.
    """
    first = next((index for index, name in enumerate(names) if matches(name, layer)), None)
    if first is None:
        raise BadInput(f"freeze: this backbone has no layer {layer}; it has {', '.join(_outer(names))}, and what lies in them")
    return list(names[first:])


def _by_layer(parts: Mapping[str, nn.Module], backbone: Sequence[str], policy: FreezePolicy) -> set[str]:
    every = [name for part in backbone for name, _ in _own(part, parts[part])]
    chosen: set[str] = set()
    for layer in policy.layers:
        found = [name for name in every if matches(name, layer)]
        if not found:
            raise BadInput(f"freeze: this backbone has no layer {layer}; it has {', '.join(_outer(every))}, and what lies in them")
        chosen |= set(found)
    if policy.first_layer is not None and policy.lora is None:
        chosen |= set(names_from(every, policy.first_layer))
    return chosen


def _own(part: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a part without low-rank matrices, which train only where they are asked for."""
    return ((name, p) for name, p in module.named_parameters(part) if not _in_adapter(module, part, name))


def _in_adapter(module: nn.Module, part: str, name: str) -> bool:
    owner, _, leaf = name[len(part) + 1 :].rpartition(".")
    parent, _, child = owner.rpartition(".")
    return leaf == "weight" and child in LowRank.TRAINED and isinstance(module.get_submodule(parent), LowRank)


def _kinds(part: str, module: nn.Module) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    gained = {id(one.affine) for one in module.modules() if isinstance(one, Gained)}
    for name, owner in module.named_modules(prefix=part):
        is_norm = isinstance(owner, _NORMS) or id(owner) in gained
        for inner, _ in owner.named_parameters(recurse=is_norm):
            found = kinds.setdefault(f"{name}.{inner}", set())
            if inner.rpartition(".")[2] == "bias":
                found.add("bias")
            if is_norm:
                found |= {"norm", "gain"} if inner.rpartition(".")[2] == "weight" else {"norm"}
    return kinds


def _outer(names: Sequence[str]) -> list[str]:
    """The outermost layers, `stages.3` rather than `stages`."""
    found = []
    for name in names:
        first, *rest = readable(name).split(".")
        found.append(f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first)
    return list(dict.fromkeys(found))


def freeze_module(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode with gradients off: BatchNorm there reads its stored statistics and never updates them."""
    return module.requires_grad_(False).eval()
