"""A small language for conditions on the settings of a trial: `clip_norm < 1 or method == dpsgd`. Nothing in it runs code.

Python's own parser reads the text, and only the node types of `_RULES` are taken over into a tree of our own, which is evaluated here.

| form | what |
|---|---|
| `optimizer.learning_rate` | a setting, by its dotted path |
| `0.1`, `1e-4`, `true`, `null` | numbers and YAML's words |
| `dpsgd`, `'models/thunder'` | a text; quotes are needed where it is not one plain word |
| `+ - * /`, `min(a, b)`, `max(a, b)`, `abs(a)` | numbers from numbers |
| `< <= > >= == !=`, `in [a, b]`, `not in [a, b]` | comparisons; `0 < a < 1` works too |
| `and or not`, parentheses | conditions from conditions |

A setting that a trial does not have, such as the rank of a method without a subspace, has no value. Arithmetic and comparisons with it
have none either, and `and`, `or`, `not` follow Kleene's three-valued logic: `false and x` is false whatever x is. `x == null` asks
whether there is a value.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

LONGEST = 500
"""Characters of an expression. A longer one is a program, and Python's parser recurses into what it reads."""

Value = bool | int | float | str | None
"""None: no value."""
Lookup = Callable[[str], Value]

NUMBER, TEXT, TRUTH, NOTHING = "a number", "a text", "a condition", "null"
Kinds = frozenset[str]

EXAMPLE = "expected a comparison of settings, such as stages.private.steps * sampling_prob <= 60 or method == dpsgd"
_LITERALS: dict[str, Value] = {"true": True, "false": False, "null": None}
_ARITHMETIC: dict[type[ast.operator], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ORDER: dict[type[ast.cmpop], tuple[str, Callable[..., bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "abs": abs}


class Vocabulary(Protocol):
    """The settings that an expression may name."""

    def kinds(self, path: str) -> Kinds | None:
        """What values a setting can have; None where there is no such setting."""

    def unknown(self, path: str) -> str:
        """What is wrong with a path that is no setting."""

    def why_not(self, path: str, value: Value) -> str | None:
        """Why a setting can never have a value; None where it can."""


class Node(Protocol):
    """A piece of a checked expression."""

    @property
    def kinds(self) -> Kinds:
        """What its value can be."""

    def value(self, lookup: Lookup) -> Value:
        """Its value; None where it has none.

        Raises:
            ValueError: it cannot be computed: a division by 0, a text where a number is needed.
        """

    def paths(self) -> Iterator[str]:
        """The settings that it reads."""


def parse_expression(text: str, vocabulary: Vocabulary) -> Node:
    """A checked expression.

    Raises:
        ValueError: the message says what is wrong with `text`, without the text.
    """
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters, more than {LONGEST}; write several constraints")
    if "\\" in text:
        raise ValueError(f"a backslash has no meaning here; {EXAMPLE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text.strip().replace("\n", " "), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        hint = "; == asks whether two are equal" if "=" in text and "==" not in text else ""
        said = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise ValueError(f"is no expression ({said}); {EXAMPLE}{hint}") from None
    try:
        node = _read(tree.body, vocabulary)
    except RecursionError:
        raise ValueError(f"is nested too deeply; {EXAMPLE}") from None
    if node.kinds != {TRUTH}:
        raise ValueError(f"is {_told(node.kinds)}, not a condition; {EXAMPLE}")
    if next(node.paths(), None) is None:
        raise ValueError(f"reads no setting of a trial; {EXAMPLE}")
    return node


@dataclass(frozen=True)
class _Literal:
    given: Value

    @property
    def kinds(self) -> Kinds:
        return frozenset({_kind_of(self.given)})

    def value(self, lookup: Lookup) -> Value:
        return self.given

    def paths(self) -> Iterator[str]:
        return iter(())


@dataclass(frozen=True)
class _Setting:
    path: str
    kinds: Kinds

    def value(self, lookup: Lookup) -> Value:
        return lookup(self.path)

    def paths(self) -> Iterator[str]:
        yield self.path


@dataclass(frozen=True)
class _Applied:
    """A function of values that are all there; no value where one of them is missing."""

    function: Callable[..., Value]
    operands: tuple[Node, ...]
    kinds: Kinds
    needs: str

    def value(self, lookup: Lookup) -> Value:
        values = [one.value(lookup) for one in self.operands]
        if any(value is None for value in values):
            return None
        for value in values:
            if _kind_of(value) != self.needs:
                raise ValueError(f"{value} is no {self.needs.removeprefix('a ')}")
        try:
            return self.function(*values)
        except (ZeroDivisionError, OverflowError) as error:
            raise ValueError(str(error)) from None

    def paths(self) -> Iterator[str]:
        return (path for one in self.operands for path in one.paths())


@dataclass(frozen=True)
class _Equal:
    """Whether a value is one of several, type included; None among them asks for no value."""

    one: Node
    others: tuple[Node, ...]
    negated: bool
    kinds: Kinds = frozenset({TRUTH})

    def value(self, lookup: Lookup) -> Value:
        left = self.one.value(lookup)
        if left is None:
            return not self.negated if _Literal(None) in self.others else None
        rest = [other.value(lookup) for other in self.others]
        if any(_kind_of(left) == _kind_of(value) and left == value for value in rest):
            return not self.negated
        is_open = any(value is None and other != _Literal(None) for value, other in zip(rest, self.others, strict=True))
        return None if is_open else self.negated

    def paths(self) -> Iterator[str]:
        return (path for one in (self.one, *self.others) for path in one.paths())


@dataclass(frozen=True)
class _Junction:
    """`and` (decided by false) and `or` (decided by true), left to right."""

    parts: tuple[Node, ...]
    decided_by: bool
    kinds: Kinds = frozenset({TRUTH})

    def value(self, lookup: Lookup) -> Value:
        unknown = False
        for part in self.parts:
            value = part.value(lookup)
            if value is self.decided_by:
                return self.decided_by
            unknown = unknown or value is None
        return None if unknown else not self.decided_by

    def paths(self) -> Iterator[str]:
        return (path for one in self.parts for path in one.paths())


def _kind_of(value: Value) -> str:
    if value is None:
        return NOTHING
    return TRUTH if isinstance(value, bool) else NUMBER if isinstance(value, int | float) else TEXT


def _told(kinds: Kinds) -> str:
    return " or ".join(sorted(kinds))


def _need(node: Node, kind: str, what: str) -> Node:
    if kind not in node.kinds:
        raise ValueError(f"{what} needs {kind}, given {_told(node.kinds)}")
    return node


def _read(node: ast.expr, vocabulary: Vocabulary) -> Node:
    for kind, rule in _RULES.items():
        if isinstance(node, kind):
            return rule(node, vocabulary)
    raise ValueError(f"{ast.unparse(node)} has no meaning here; {EXAMPLE}")


def _constant(node: ast.Constant, vocabulary: Vocabulary) -> Node:
    if isinstance(node.value, bool | int | float | str):
        return _Literal(node.value)
    raise ValueError(f"{ast.unparse(node)} has no meaning here; YAML writes true, false and null")


def _name(node: ast.expr, vocabulary: Vocabulary) -> Node:
    path = ast.unparse(node)
    if path in _LITERALS:
        return _Literal(_LITERALS[path])
    kinds = vocabulary.kinds(path)
    if kinds is None:
        raise ValueError(vocabulary.unknown(path))
    return _Setting(path, kinds)


def _arithmetic(node: ast.BinOp, vocabulary: Vocabulary) -> Node:
    function = _ARITHMETIC.get(type(node.op))
    if function is None:
        raise ValueError(f"{ast.unparse(node)}: of arithmetic there are + - * / alone")
    sides = tuple(_need(_read(side, vocabulary), NUMBER, "arithmetic") for side in (node.left, node.right))
    return _Applied(function, sides, frozenset({NUMBER}), NUMBER)


def _unary(node: ast.UnaryOp, vocabulary: Vocabulary) -> Node:
    below = _read(node.operand, vocabulary)
    if isinstance(node.op, ast.Not):
        return _Applied(operator.not_, (_need(below, TRUTH, "not"),), frozenset({TRUTH}), TRUTH)
    if isinstance(node.op, ast.USub):
        return _Applied(operator.neg, (_need(below, NUMBER, "arithmetic"),), frozenset({NUMBER}), NUMBER)
    raise ValueError(f"{ast.unparse(node)} has no meaning here; {EXAMPLE}")


def _call(node: ast.Call, vocabulary: Vocabulary) -> Node:
    name = ast.unparse(node.func)
    if name not in _FUNCTIONS:
        raise ValueError(f"there is no function {name}; expected one of {', '.join(sorted(_FUNCTIONS))}")
    wanted = len(node.args) == 1 if name == "abs" else len(node.args) >= 2
    if node.keywords or not wanted or any(isinstance(one, ast.Starred) for one in node.args):
        raise ValueError(f"{name} takes {'one number' if name == 'abs' else 'two numbers or more'}, given {ast.unparse(node)}")
    operands = tuple(_need(_read(one, vocabulary), NUMBER, name) for one in node.args)
    return _Applied(_FUNCTIONS[name], operands, frozenset({NUMBER}), NUMBER)


def _junction(node: ast.BoolOp, vocabulary: Vocabulary) -> Node:
    name = "and" if isinstance(node.op, ast.And) else "or"
    return _Junction(tuple(_need(_read(one, vocabulary), TRUTH, name) for one in node.values), name == "or")


def _comparison(node: ast.Compare, vocabulary: Vocabulary) -> Node:
    sides: Sequence[ast.expr] = (node.left, *node.comparators)
    found = tuple(_compared(sides[i], op, sides[i + 1], vocabulary) for i, op in enumerate(node.ops))
    return found[0] if len(found) == 1 else _Junction(found, False)


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, vocabulary: Vocabulary) -> Node:
    if type(op) in _ORDER:
        sign, function = _ORDER[type(op)]
        sides = tuple(_need(_read(side, vocabulary), NUMBER, sign) for side in (left, right))
        return _Applied(function, sides, frozenset({TRUTH}), NUMBER)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.List) or not right.elts:
            raise ValueError(f"in needs a list such as [dpsgd, projected], given {ast.unparse(right)}")
        others, negated = tuple(right.elts), isinstance(op, ast.NotIn)
    elif isinstance(op, ast.Eq | ast.NotEq):
        others, negated = (right,), isinstance(op, ast.NotEq)
    else:
        raise ValueError(f"{ast.unparse(ast.Compare(left, [op], [right]))} has no meaning here; == asks whether two are equal")
    if len(others) == 1 and _is_value(left, vocabulary) and not _is_value(others[0], vocabulary):
        left, others = others[0], (left,)
    one = _read(left, vocabulary)
    return _Equal(one, tuple(_equal_to(one, other, vocabulary) for other in others), negated)


def _is_value(node: ast.expr, vocabulary: Vocabulary) -> bool:
    """Whether it is a value by itself: a literal, or one plain word that names no setting, such as a method's name."""
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and vocabulary.kinds(node.id) is None)


def _equal_to(one: Node, other: ast.expr, vocabulary: Vocabulary) -> Node:
    """The other side of an equality, which must be able to hold."""
    node: Node
    is_word = isinstance(other, ast.Name) and other.id not in _LITERALS and _is_value(other, vocabulary)
    if is_word and isinstance(other, ast.Name) and isinstance(one, _Setting) and TEXT in one.kinds:
        node = _Literal(other.id)
    else:
        node = _read(other, vocabulary)
    if isinstance(node, _Literal) and isinstance(one, _Setting) and node.given is not None:
        problem = vocabulary.why_not(one.path, node.given)
        if problem is not None:
            raise ValueError(problem)
    if NOTHING not in node.kinds and not node.kinds & one.kinds:
        raise ValueError(f"compares {_told(one.kinds)} with {_told(node.kinds)}: they are never equal")
    return node


_RULES: dict[type[ast.expr], Callable[..., Node]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _name,
    ast.BinOp: _arithmetic,
    ast.UnaryOp: _unary,
    ast.Call: _call,
    ast.BoolOp: _junction,
    ast.Compare: _comparison,
}
"""All that an expression may hold. Whatever is not here is refused, so nothing is looked up, called or run that is not meant."""
