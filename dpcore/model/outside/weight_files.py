"""Weights from files, by name and strictly: every tensor of the network is set, every tensor of the file is used or named as left out."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dpcore.config import Places
from dpcore.errors import BadInput, Corrupt

_CONTAINERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys under which training scripts keep the weights in a .pth file."""
_COUNTERS = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a file gave. `left_out`: tensors that the network does not have, by name."""

    source: str
    tensors: int
    left_out: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """One sentence on what was loaded, one on what was not."""
        loaded = f"{self.source}: {self.tensors} tensors loaded"
        shown = ", ".join(self.left_out[:4]) + (", ..." if len(self.left_out) > 4 else "")
        return (loaded, f"{self.source}: {len(self.left_out)} tensors left out ({shown})") if self.left_out else (loaded,)


def weights_path(weights: str, places: Places | None) -> Path:
    """The file that `model.weights` names, below the data directory.

    Raises:
        BadInput: it is not there, or of another kind.
    """
    if places is None:
        raise BadInput("model.weights needs the data directory")
    path = places.data_dir / weights
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise BadInput(f"model.weights {weights}: expected a .safetensors or .pth file below the data directory")
    if not path.is_file():
        raise BadInput(f"model.weights: {path} is not there; put it below the data directory")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. A .pth file is read without running any code of its.

    Raises:
        Corrupt: it cannot be read. BadInput: it holds something other than tensors by name.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise Corrupt(f"{path}: {error}; fetch the file again") from error
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        cause = str(error).splitlines()[0]
        raise BadInput(
            f"{path}: it holds more than tensors, or is damaged ({cause}); save the state_dict alone, best as .safetensors"
        ) from error
    inside = [key for key in _CONTAINERS if isinstance(document, dict) and isinstance(document.get(key), dict)]
    if len(inside) > 1:
        raise BadInput(f"{path} holds several sets of weights ({', '.join(inside)}); save the one that you mean as .safetensors")
    state = document[inside[0]] if inside else document
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path}: expected tensors by name, or one of {', '.join(_CONTAINERS)} with them")
    return dict(state)


def fit(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    rename: Mapping[str, str],
    elsewhere: Collection[str],
    left_out: Iterable[str],
) -> Loaded:
    """Sets every weight and every statistic of `network` from `state`.

    Args:
        network: to be filled.
        state: tensors by name; a BatchNorm's count of batches is not needed.
        source: for messages.
        rename: beginnings of names in `state` → in `network`.
        elsewhere: names in `state` that belong to layers which nobody wants here, the classifier and what follows the wanted maps.
        left_out: patterns of names that the user gave up.

    Raises:
        BadInput: a tensor is missing, has another shape, or is left over; the message says how to leave it out.
    """
    own = network.state_dict()
    given = {_renamed(name, rename): (name, tensor) for name, tensor in state.items()}
    missing = sorted(name for name in own.keys() - given.keys() if not name.endswith(_COUNTERS))
    shapes = sorted(name for name in own.keys() & given.keys() if own[name].shape != given[name][1].shape)
    if missing or shapes:
        raise BadInput(
            f"model.weights {source}: it does not fit the network: {len(missing)} tensors missing {missing[:3]}, {len(shapes)} of another "
            f"shape {shapes[:3]}; give the weights of this very network"
        )
    surplus, patterns = sorted(given[name][0] for name in given.keys() - own.keys()), tuple(left_out)
    unwanted = [name for name in surplus if name not in elsewhere and not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if unwanted:
        raise BadInput(
            f"model.weights {source}: {len(unwanted)} tensors have no place in the network ({', '.join(unwanted[:4])}); to leave them out, "
            f"name them: model.weights_left_out: ['{_pattern(unwanted)}']"
        )
    network.load_state_dict({name: given[name][1] if name in given else own[name] for name in own})
    return Loaded(source=source, tensors=len(own.keys() & given.keys()), left_out=tuple(surplus))


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if name == old or name.startswith(f"{old}." if old else ""):
            return new + name[len(old) :]
    return name


def _pattern(names: list[str]) -> str:
    first = {name.partition(".")[0] for name in names}
    return f"{first.pop()}.*" if len(first) == 1 else names[0]
