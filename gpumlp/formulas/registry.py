"""Registries: the definitions that users name, their own included."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from gpumlp.errors import ConfigurationError, unknown_name


class Named(Protocol):
    """Anything with a name, as all definitions are."""

    @property
    def name(self) -> str:
        """The name that users type; a definition with a parameter carries it: leaky_relu(slope=0.2)."""
        ...


D = TypeVar("D", bound=Named)


@dataclass(frozen=True)
class Interval:
    """The real numbers between two bounds; a closed end belongs to it."""

    low: float = float("-inf")
    high: float = float("inf")
    low_closed: bool = False
    high_closed: bool = False

    def __contains__(self, other: Interval) -> bool:
        low = self.low < other.low or (self.low == other.low and (self.low_closed or not other.low_closed))
        high = self.high > other.high or (self.high == other.high and (self.high_closed or not other.high_closed))
        return low and high

    def holds(self, lowest: float, highest: float) -> bool:
        """Tell whether every number from `lowest` to `highest` lies inside."""
        return Interval(lowest, highest, True, True) in self

    def __str__(self) -> str:
        left, right = "[" if self.low_closed else "(", "]" if self.high_closed else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


REALS = Interval()
POSITIVE = Interval(low=0.0)
NOT_NEGATIVE = Interval(low=0.0, low_closed=True)
OPEN_UNIT = Interval(0.0, 1.0)
UNIT = Interval(0.0, 1.0, True, True)


class Registry(Generic[D]):
    """Definitions by name. A name may stand for a function of parameters: "leaky_relu" and "leaky_relu(slope=0.2)"."""

    def __init__(self, kind: str, *types: type) -> None:
        self.kind, self.types = kind, types
        self._makers: dict[str, Callable[..., D]] = {}
        self._made: dict[tuple[str, str, str], D] = {}
        self._aliases: dict[str, str] = {}
        self._sealed: frozenset[str] = frozenset()

    def seal(self) -> None:
        """Let what is registered so far never be replaced."""
        self._sealed = frozenset(self._makers)

    def register(self, definition: D | Callable[..., D], *aliases: str, replace: bool = False) -> None:
        """Let a definition, or a function that returns one, be used by name from now on.

        replace   whether it may take the place of a user's own definition of that name
        Raises    ConfigurationError if a name is taken by another definition
        """
        if callable(definition):
            made, maker = definition(), definition
        else:
            made, maker = definition, lambda: definition
        base = made.name.partition("(")[0]
        for name in (made.name, *aliases):
            if not re.fullmatch(r"[^\W\d]\w*" if name in aliases else r"[^\W\d]\w*(\(.*\))?", name):
                raise ConfigurationError(
                    f"{self.kind} name {name!r}: expected letters, digits and _, then parameters in brackets if any"
                )
        if replace and base in self._makers and base not in self._sealed:
            self.remove(base)
        for name in (base, *aliases):
            if name in self:
                raise ConfigurationError(f"{self.kind} {name!r} is registered already; choose another name")
        self._makers[base] = maker
        self._aliases.update(dict.fromkeys(aliases, base))

    def remove(self, name: str) -> None:
        """Take a definition and its aliases out again."""
        del self._makers[name]
        self._made = {key: made for key, made in self._made.items() if key[0] != name}
        self._aliases = {alias: base for alias, base in self._aliases.items() if base != name}

    def get(self, given: str | D) -> D:
        """Return the definition that `given` names, or `given` itself if it is one.

        Raises UnknownName with the nearest known name, ConfigurationError if a parameter is wrong.
        """
        if not isinstance(given, str):
            if isinstance(given, self.types):
                return given
            call = f"; call it: {given.__name__}()" if callable(given) and hasattr(given, "__name__") else ""
            shown = f"{type(given).__name__} {given.name}" if hasattr(given, "name") else repr(given)
            raise ConfigurationError(
                f"{self.kind} {shown} is neither a name nor a definition{call}; known names are {', '.join(self)}"
            )
        base, arguments, parameters = self.read(given)
        key = (base, repr(arguments), repr(sorted(parameters.items())))
        try:
            if key not in self._made:  # one name, one definition: what is compiled for it is found again
                self._made[key] = self._makers[base](*arguments, **parameters)
            return self._made[key]
        except TypeError as error:
            raise ConfigurationError(f"{self.kind} {given!r}: {error}") from error

    def read(self, given: str) -> tuple[str, list[Any], dict[str, Any]]:
        """Return the name of a definition without alias and brackets, and the parameters in the brackets.

        Raises UnknownName with the nearest known name, ConfigurationError for parameters that are no plain values.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", given)
        base = self._aliases.get(match[1], match[1]) if match else given
        if match is None or base not in self._makers:
            raise unknown_name(self.kind, given, self.names())
        return (base, *_parse_arguments(self.kind, given, match[2] or ""))

    def definitions(self) -> list[D]:
        """Return every definition once, with its default parameters."""
        return [maker() for maker in self._makers.values()]

    def names(self) -> list[str]:
        """Return every name that is understood, aliases included."""
        return sorted([*self._makers, *self._aliases])

    def aliases(self, name: str) -> list[str]:
        """Return the other names of a definition."""
        return sorted(alias for alias, base in self._aliases.items() if base == name)

    def __contains__(self, name: object) -> bool:
        return name in self._makers or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)


def _parse_arguments(kind: str, given: str, text: str) -> tuple[list[Any], dict[str, Any]]:
    """Read the parameters of "name(0.2)" or "name(slope=0.2)": numbers only, nothing is evaluated."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        return (
            [ast.literal_eval(a) for a in call.args],
            {str(k.arg): ast.literal_eval(k.value) for k in call.keywords},
        )
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ConfigurationError(
            f"{kind} {given!r}: cannot read the parameters {text!r}; write name(parameter=number)"
        ) from error
