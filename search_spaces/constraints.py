"""Constraints between the settings of a trial, as data in the space: `stages.private.steps * sampling_prob <= 60`.

A constraint is broken where it is false. Where a setting that it reads has no value it is neither true nor false, and holds. It reads
a whole `TrialConfig`, defaults included, and nothing else: no data, no result, no draw before it. So the draws that a space admits are
a fixed set, and independent draws that are rejected until one is admitted are independent draws from that set.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dpcore.config import TrialConfig, did_you_mean
from dpcore.config.parsing import told
from dpcore.errors import BadInput
from search_spaces.expressions import NUMBER, TEXT, TRUTH, Kinds, Node, Value, parse_expression

DERIVED = ("sampling_prob",)
"""Properties of a TrialConfig that a constraint may read like settings."""


class ConstraintBroken(BadInput):
    """A draw that TrialConfig takes breaks a constraint of its space.

    Attributes:
        rule: the constraint, without the values of this draw.
    """

    def __init__(self, rule: str, values: str) -> None:
        super().__init__(f"{rule} ({values})")
        self.rule = rule


class ConstraintFault(BadInput):
    """A constraint cannot be computed for a draw: a division by 0, a text where a number is needed.

    Attributes:
        rule: the constraint, without the values of this draw.
    """

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(f"{rule} cannot be computed ({why})")
        self.rule = rule


@dataclass(frozen=True)
class Constraint:
    """A checked condition that every draw of a space must keep.

    Attributes:
        text: as it stands in the file.
        condition: what it says.
    """

    text: str
    condition: Node

    @classmethod
    def parse(cls, text: str, *, splits: Iterable[str] | None = None) -> Constraint:
        """The constraint of a text.

        Args:
            text: the expression.
            splits: the names that a split can have; None: any.

        Raises:
            ValueError: the text is no condition on settings; the message holds it.
        """
        return _parsed(text, None if splits is None else frozenset(splits))

    def check(self, config: TrialConfig) -> None:
        """Holds a trial against it.

        Raises:
            ConstraintBroken: it is false of this trial.
            ConstraintFault: it cannot be computed for this trial.
        """
        try:
            value = self.condition.value(lambda path: value_in(config, path))
        except ValueError as error:
            raise ConstraintFault(self.rule, f"{error}; {self._values(config)}") from None
        if value is False:
            raise ConstraintBroken(f"{self.rule} does not hold", self._values(config))

    @property
    def rule(self) -> str:
        """Its name in a message."""
        return f"constraint `{self.text}`"

    @property
    def paths(self) -> tuple[str, ...]:
        """The settings that it reads, each once."""
        return tuple(dict.fromkeys(self.condition.paths()))

    def _values(self, config: TrialConfig) -> str:
        return ", ".join(f"{path} {_shown(value_in(config, path))}" for path in self.paths)


@functools.lru_cache(maxsize=256)
def _parsed(text: str, splits: frozenset[str] | None) -> Constraint:
    try:
        return Constraint(text, parse_expression(text, _TrialVocabulary(splits)))
    except ValueError as error:
        raise ValueError(f"`{text}` {error}") from None


def check_all(constraints: Iterable[str], config: TrialConfig) -> None:
    """Holds a trial against all constraints of its space.

    Raises:
        ConstraintBroken: the first that it breaks. ConstraintFault: one cannot be computed.
    """
    for text in constraints:
        Constraint.parse(text).check(config)


def value_in(config: TrialConfig, path: str) -> Value:
    """The value of a setting; None where it has none. A split is its name."""
    node: Any = config
    for name in path.split("."):
        node = None if node is None else getattr(node, name)
    if path == "split":
        return None if node is None else str(node.name)
    value: Value = node
    return value


def _shown(value: Value) -> str:
    return "has no value" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _TrialVocabulary:
    """What a constraint may name: the single settings of a trial, and `DERIVED`."""

    splits: frozenset[str] | None

    def kinds(self, path: str) -> Kinds | None:
        """What a setting can be; None where it is none, or a section."""
        if path in DERIVED:
            return frozenset({NUMBER})
        if path == "split":
            return frozenset({TEXT})
        field = _field_at(path)
        return None if field is None else _kinds_of(field.annotation) or None

    def unknown(self, path: str) -> str:
        """What is wrong with a path that is no setting."""
        return f"names {path}, which is no setting{did_you_mean(path, list(_settings()))}"

    def why_not(self, path: str, value: Value) -> str | None:
        """Why a setting can never have a value: what TrialConfig would say of it."""
        if path == "split":
            if self.splits is None or value in self.splits:
                return None
            return f"compares split with {value}, which splits: does not define{did_you_mean(str(value), list(self.splits))}"
        if path in DERIVED:
            return None
        try:
            _adapter(path).validate_python(value)
        except ValidationError as error:
            return f"compares {path} with {value}, which it cannot be ({told(dict(error.errors()[-1]), given=value)})"
        return None


def _field_at(path: str) -> FieldInfo | None:
    """The field of a trial at a dotted path, the parts of a union looked into; None where there is none."""
    kind: type[BaseModel] | None = TrialConfig
    field: FieldInfo | None = None
    for name in path.split("."):
        field = None if kind is None else kind.model_fields.get(name)
        if field is None:
            return None
        kind = _section_of(field)
    return field


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    nested = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]
    return nested[0] if nested else None


def _kinds_of(annotation: Any) -> Kinds:
    """The kinds of single values that an annotation admits; empty for a section or a list."""
    if annotation is bool:
        return frozenset({TRUTH})
    if annotation in (int, float):
        return frozenset({NUMBER})
    if annotation is str:
        return frozenset({TEXT})
    if get_origin(annotation) is Literal:
        return frozenset({TEXT}) if all(isinstance(one, str) for one in get_args(annotation)) else frozenset()
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return frozenset() if get_origin(annotation) in (tuple, list, dict) else frozenset().union(*(_kinds_of(part) for part in parts))


@functools.cache
def _adapter(path: str) -> TypeAdapter[Any]:
    """What judges single values of the setting at `path`."""
    field = _field_at(path)
    if field is None:
        raise RuntimeError(f"{path} is no setting")
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)


@functools.cache
def _settings() -> tuple[str, ...]:
    """All that a constraint may name, for a message."""
    return (*DERIVED, *_paths_in(TrialConfig, ""))


def _paths_in(kind: type[BaseModel], parent: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        section = _section_of(field)
        if f"{parent}{name}" == "split" or (section is None and _kinds_of(field.annotation)):
            yield f"{parent}{name}"
        if section is not None:
            yield from _paths_in(section, f"{parent}{name}.")
