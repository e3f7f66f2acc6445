"""One's own network: `model.backbone: module:FUNCTION`.

The function gives a torch module from images (B,3,H,W) in [-1, 1] to maps (B,C,h,w), or a `BuiltBackbone`. It takes nothing, or the
`ModelConfig`. The module that holds it is imported from PYTHONPATH, an installed package or the working directory.

What the function's code says is part of the trial's identity: the digest of its file, and of each file beside it that it imports, stands
in the replay fingerprint and in the keys of caches.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dpcore.config import ModelConfig, Places
from dpcore.errors import BadInput
from dpcore.model.built import BuiltBackbone
from dpcore.model.outside.chain import Foreign, safe_backbone
from dpcore.model.outside.weight_files import fit, read_weights, weights_path


def build_own(config: ModelConfig, places: Places | None, document: Mapping[str, Any] | None) -> BuiltBackbone:
    """The network that `module:FUNCTION` makes, safe for per-example gradients.

    Raises:
        BadInput: it can't be imported here, fails, gives something else, or differs from the code that a saved model was made with.
    """
    function, sources = _imported(config.backbone)
    code = {name: _digest(text) for name, text in sources.items()}
    if document is not None and document["code"] != code:
        changed = sorted(name for name in document["code"].keys() | code.keys() if document["code"].get(name) != code.get(name))
        raise BadInput(
            f"model.backbone {config.backbone}: {', '.join(changed)} is not the code that this model was trained with; put back the "
            "text that its model.json holds under topology.sources"
        )
    made = _called(function, config)
    if isinstance(made, BuiltBackbone):
        return replace(made, code=code, document={**(made.document or {}), "code": code, "sources": sources})
    if not isinstance(made, nn.Module):
        raise BadInput(f"model.backbone {config.backbone}: expected a torch module or a BuiltBackbone, it gave {type(made).__name__}")
    loaded: tuple[str, ...] = ()
    if document is None and config.weights is not None and not config.starts_at_random:
        path = weights_path(config.weights, places)
        loaded = fit(made, read_weights(path), source=path.name, rename={}, elsewhere=(), left_out=config.weights_left_out).lines()
    foreign = Foreign(network=made, document={"code": code, "sources": sources}, code=code, loaded=loaded)
    return safe_backbone(foreign, config, document)


def _imported(backbone: str) -> tuple[Callable[..., Any], dict[str, str]]:
    """The function, and the text of the files that it is made of.

    Raises:
        BadInput: one message with the machine, the cause and what to do.
    """
    module_name, _, name = backbone.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: a file of the working directory must not hide a package
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except Exception as error:  # a user's code may fail in any way; the message names it
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise BadInput(
            f"model.backbone {backbone}: it can't be imported on {platform.node()} ({cause}). {module_name.partition('.')[0]} must lie in "
            f"the working directory ({here}) or in a folder of PYTHONPATH, on every machine of the sweep"
        ) from error
    if not callable(function):
        raise BadInput(f"model.backbone {backbone}: expected a function, {name} is a {type(function).__name__}")
    file = getattr(module, "__file__", None)
    return function, {} if file is None else dict(_sources(module_name, Path(file)))


def _called(function: Callable[..., Any], config: ModelConfig) -> Any:
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    try:
        return function(config) if needed else function()
    except Exception as error:
        cause = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise BadInput(f"model.backbone {config.backbone}: the function failed ({cause}); call it yourself to see where") from error


def _sources(module_name: str, file: Path) -> Iterator[tuple[str, str]]:
    """Name and text of the module, and of each module of the same package, or beside the file, that it imports. What is installed
    is not followed: its versions are the environment's."""
    base = file.resolve().parents[module_name.count(".") + (file.name == "__init__.py")]
    top = module_name.partition(".")[0]
    alone = (base / top).is_dir() or "site-packages" in base.parts
    waiting, seen = [module_name], set()
    while waiting:
        name = waiting.pop()
        path = _file_of(base, name)
        if name in seen or path is None or (alone and name.partition(".")[0] != top):
            continue
        seen.add(name)
        text = path.read_text(encoding="utf-8")
        yield name, text
        waiting += sorted(set(_imports(text, name, is_package=path.name == "__init__.py")))


def _file_of(base: Path, name: str) -> Path | None:
    """The file of a module below the folder that its first name lies in."""
    stem = base.joinpath(*name.split("."))
    return next((path for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if path.is_file()), None)


def _imports(text: str, name: str, *, is_package: bool) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
