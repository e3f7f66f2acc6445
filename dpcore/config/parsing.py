"""How configuration is checked: frozen parts, one message per mistake, digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from dpcore.errors import BadInput
from dpcore.words import did_you_mean as did_you_mean

UNKNOWN_NAME = "unknown_name"
"""pydantic's type of a mistake whose message is whole: a name that no table has."""


class Part(BaseModel):
    """A frozen piece of configuration that refuses unknown keys and silent conversions of NaN or infinity.

    `ADDED` names the fields that came after version 0.1.0. At its default such a field is not part of a fingerprint, so the runs of
    earlier sweeps keep theirs. Its default must never change."""

    ADDED: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


PartT = TypeVar("PartT", bound=BaseModel)


def parse_config(kind: type[PartT], values: Any, *, where: str = "") -> PartT:
    """`values` as a `kind`, or `BadInput` with one line per mistake: path, what was expected, what was given."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput("\n".join(_describe_mistake(kind, dict(mistake), where) for mistake in error.errors())) from None


def _describe_mistake(kind: type[BaseModel], mistake: dict[str, Any], where: str) -> str:
    parts = [str(part) for part in mistake["loc"]]
    path = ".".join([where, *parts] if where else parts)
    if mistake["type"] == "extra_forbidden":
        return f"{path}: unknown key{did_you_mean(parts[-1], field_names(kind, parts[:-1]))}"
    if mistake["type"] == "missing":
        return f"{path}: missing; give it a value"
    if mistake["type"] == "value_error":
        return f"{path + ': ' if path else ''}{mistake['ctx']['error']}"
    return f"{path}: {told(mistake, given=mistake['input'])}"


def told(mistake: dict[str, Any], *, given: Any) -> str:
    """pydantic's message on a field, with what was given."""
    message: str = mistake["msg"]
    return message if mistake["type"] == UNKNOWN_NAME else f"{message.lower()}, given {given!r}"


def field_names(kind: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that `kind` takes at a path of nested parts; empty where the path leads out of the parts."""
    for part in path:
        field = kind.model_fields.get(part)
        annotations = [] if field is None else [field.annotation, *get_args(field.annotation)]
        nested = [a for a in annotations if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return []
        kind = nested[0]
    return list(kind.model_fields)


def identity_of(part: Part) -> dict[str, Any]:
    """All values of a part as JSON, at every depth, without its `ADDED` fields at their defaults: what a fingerprint covers."""
    document: dict[str, Any] = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if name in part.ADDED and value == field.get_default(call_default_factory=True):
            del document[name]
        elif isinstance(value, Part):
            document[name] = identity_of(value)
    return document


def digest_of(document: Any) -> str:
    """16 hex digits of sha256 over the canonical JSON of `document`."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
