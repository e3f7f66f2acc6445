"""Refuses networks whose per-example gradients are not defined, wrong, or silently incomplete.

| found | why it is refused |
|---|---|
| BatchNorm in a trainable part | an example's gradient depends on its neighbours; running means are an unnoised release |
| BatchNorm in a frozen part left in train mode | it absorbs private statistics without any gradient |
| an in-place module | Opacus' backward hooks see overwritten tensors and crash or compute something else |

Parameters of any layer have per-example gradients (`dpcore.gradients`), and `dpcore.privacy.row_check` compares them before the first step.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpcore.errors import Refused


def require_dp_safe(stem: nn.Module, tail: nn.Module) -> None:
    """Checks a network split into its frozen `stem` and its trainable `tail`.

    *Guarantees*: after it returns, no module keeps a statistic of the batches that pass through it.

    Raises:
        Refused: one line for each module that breaks the above, with what to do.
    """
    lines = [*_batch_statistics(stem, "frozen"), *_batch_statistics(tail, "trainable"), *_trained_stem(stem)]
    lines += _in_place(tail)
    if lines:
        raise Refused("this network cannot train under differential privacy:\n" + "\n".join(lines))


def _batch_statistics(part: nn.Module, kind: str) -> list[str]:
    found = []
    for name, module in part.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if kind == "trainable":
            found.append(f"{name}: {type(module).__name__} in the trainable part couples examples; fold it, freeze it or use GroupNorm")
        elif module.training or not module.track_running_stats:
            found.append(f"{name}: {type(module).__name__} in the frozen part reads batch statistics; call eval() on it")
    return found


def _trained_stem(stem: nn.Module) -> list[str]:
    return [f"{name}: a frozen parameter still requires a gradient" for name, p in stem.named_parameters() if p.requires_grad]


def _in_place(part: nn.Module) -> list[str]:
    return [
        f"{name}: {type(module).__name__}(inplace=True) overwrites what the gradient hooks read; set inplace=False"
        for name, module in part.named_modules()
        if getattr(module, "inplace", False)
    ]
