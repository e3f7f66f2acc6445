"""Tables of small named objects: what a name in a config means, and how another package adds one.

A table starts with what dpsweep brings. Others add to it in two ways, both seen by every process of a sweep, workers included:

- an installed package declares an entry point: group `dpsweep.methods` (`.regimes`, `.samplers`, ...), name = object reference;
- the environment variable `DPSWEEP_PLUGINS` names modules, comma-separated; they are imported and call `TABLE.register(...)`.

Both are looked at when a name is asked for that dpsweep does not bring, or when all names are listed. Torch-free.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from pydantic_core import PydanticCustomError

from dpcore.config.parsing import UNKNOWN_NAME
from dpcore.errors import BadInput

PLUGINS_VARIABLE = "DPSWEEP_PLUGINS"


class Named(Protocol):
    """What a table holds."""

    @property
    def name(self) -> str:
        """As configs and command lines spell it."""


EntryT = TypeVar("EntryT", bound=Named)


class Table(Generic[EntryT]):
    """The entries of one extension point by name.

    Args:
        noun: what an entry is, in the singular; its plural names the entry-point group (`method`: `dpsweep.methods`).
        plural: where it is not the noun with an s.
        kind: the class of the entries.
        entries: what dpsweep brings.
    """

    def __init__(self, noun: str, kind: type[EntryT], entries: Iterable[EntryT], *, plural: str | None = None) -> None:
        self.noun = noun
        self.group = f"dpsweep.{plural or noun + 's'}"
        self._kind = kind
        self._entries: dict[str, EntryT] = {}
        for entry in entries:
            self.register(entry)
        self.own = tuple(self._entries)

    def register(self, entry: EntryT) -> EntryT:
        """Adds an entry for this process. Workers of a sweep import what `DPSWEEP_PLUGINS` names; they know nothing else of it.

        Raises:
            BadInput: it is of another class, or the name is taken by another entry.
        """
        if not isinstance(entry, self._kind):
            raise BadInput(f"{self.group}: expected a {self._kind.__name__}, given {entry!r}")
        if self._entries.setdefault(entry.name, entry) != entry:
            raise BadInput(f"{self.noun} {entry.name} is defined already; give yours another name")
        return entry

    def names(self) -> tuple[str, ...]:
        """All names: dpsweep's own, then those of plugins. Plugins of entry points are not imported for that.

        Raises:
            BadInput: a module of `DPSWEEP_PLUGINS` does not import.
        """
        import_plugins()
        return tuple(dict.fromkeys((*self._entries, *installed(self.group))))

    def find(self, name: object) -> EntryT | None:
        """The entry of that name, None where there is none.

        Raises:
            BadInput: a plugin does not load.
        """
        if not isinstance(name, str):
            return None
        if name not in self._entries:
            import_plugins()
        if name not in self._entries and name in installed(self.group):
            self._load(installed(self.group)[name])
        return self._entries.get(name)

    def get(self, name: str) -> EntryT:
        """The entry of that name.

        Raises:
            BadInput: there is none, or its plugin does not load.
        """
        entry = self.find(name)
        if entry is None:
            raise BadInput(self.unknown(name))
        return entry

    def unknown(self, name: object) -> str:
        """What is wrong with a name, for a message."""
        names = list(self.names())
        near = difflib.get_close_matches(str(name), names, n=1)
        every = f"expected one of {', '.join(names)}"
        return f"unknown {self.noun} {name}; " + (f"did you mean {near[0]}? ({every})" if near else every)

    def checked(self, name: str) -> str:
        """`name`, if it is one; for pydantic's validators.

        Raises:
            PydanticCustomError: it is not, or its plugin does not load.
        """
        try:
            problem = None if self.find(name) is not None else self.unknown(name)
        except BadInput as error:
            problem = str(error)
        if problem is not None:
            raise PydanticCustomError(UNKNOWN_NAME, "{problem}", {"problem": problem})
        return name

    def _load(self, point: importlib.metadata.EntryPoint) -> None:
        where = f"{self.noun} {point.name} ({self.group}, {_package_of(point)})"
        entry = _imported(point.load, where)
        if not isinstance(entry, self._kind) or entry.name != point.name:
            raise BadInput(f"{where}: {point.value} must be a {self._kind.__name__} of that name, it is {entry!r}; mend the package")
        self.register(entry)


def import_plugins() -> None:
    """Imports the modules that `DPSWEEP_PLUGINS` names.

    Raises:
        BadInput: one does not import.
    """
    for module in filter(None, (part.strip() for part in os.environ.get(PLUGINS_VARIABLE, "").split(","))):
        _imported(lambda module=module: importlib.import_module(module), f"{PLUGINS_VARIABLE} names {module}")  # type: ignore[misc]


@functools.cache
def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of a group by name; reading them takes some ten milliseconds, once per process.

    Raises:
        BadInput: two packages use one name.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise BadInput(f"{group}: {_package_of(other)} and {_package_of(point)} both bring a {point.name}; uninstall one of them")
    return found


def loaded(reference: str | Any, *, what: str) -> Any:
    """The object behind a `module:name` reference, imported now; anything but a text is the object itself.

    Raises:
        BadInput: it does not import.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return _imported(lambda: getattr(importlib.import_module(module), name), f"{what} ({reference})")


def _imported(load: Callable[[], Any], where: str) -> Any:
    try:
        return load()
    except Exception as error:  # another package's code may fail in any way; the message names it
        cause = str(error).splitlines()[0] if str(error) else "no message"
        raise BadInput(f"{where}: does not load: {type(error).__name__}: {cause}; mend or remove it") from error


def _package_of(point: importlib.metadata.EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"package {point.dist.name} {point.dist.version}"
