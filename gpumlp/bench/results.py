"""What was measured: cases with their times, as the JSON that is kept, compared and drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from gpumlp.atomic import replacing
from gpumlp.errors import ConfigurationError, DataError

FORMAT, VERSION = "gpumlp bench", 1
SUITES = ("recursion", "steps", "growth")
KINDS = ("gpumlp", "baseline", "peer", "limit")
UNITS = ("step", "epoch", "recursion")
LONGEST = 1e9  # seconds, some thirty years: no time is longer


@dataclass(frozen=True)
class Case:
    """The times that one contender takes for one piece of work; (suite, case, contender) is unique in a run.

    suite           "recursion", "steps" or "growth"
    case            what is computed, as it is printed: "784-128-10, batch 64, adam"
    parameters      the same for programs: sizes, batch, n_models, activation, rule, vary, ...
    contender       who computes: "gpumlp numba", "PyTorch eager", "matrix products alone", ...
    kind            "gpumlp", "baseline", "peer" or "limit"
    unit            what one of `seconds` is the time of: "step", "epoch" or "recursion"
    examples        rows times models that a unit works on
    flops           operations of a unit's matrix products
    seconds         the samples; the same index is the same round in all contenders of a case
    reference       the time of the matrix products alone beside each sample, or None where they were not measured
    host_seconds    on a device: the host's time beside the device's in `seconds`, else None
    limit_seconds   what the products alone and the bytes that must move take here, or None; what stays in a cache, or
                    multiplies faster than NumPy's BLAS, comes below it
    checked         how far the result is from the right one, in words
    waited          the share of the time that threads stood in line for a processor beside each sample, while the
                    products alone were measured, which wait for nobody of their own; or None if unknown
    Raises          DataError for values that cannot be
    """

    suite: str
    case: str
    parameters: Mapping[str, Any]
    contender: str
    kind: str
    unit: str
    examples: int
    flops: int
    seconds: tuple[float, ...]
    reference: tuple[float, ...] | None = None
    host_seconds: tuple[float, ...] | None = None
    limit_seconds: float | None = None
    checked: str = ""
    waited: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("case", "contender", "checked"):
            _expect(isinstance(getattr(self, name), str), name, getattr(self, name), "text")
        for name, known in (("suite", SUITES), ("kind", KINDS), ("unit", UNITS)):
            _expect(getattr(self, name) in known, name, getattr(self, name), f"one of {', '.join(known)}")
        _expect(isinstance(self.parameters, Mapping), "parameters", self.parameters, "names with values")
        _expect(_whole(self.examples) and self.examples >= 1, "examples", self.examples, "a whole number from 1 up")
        _expect(_whole(self.flops) and self.flops >= 0, "flops", self.flops, "a whole number from 0 up")
        if self.limit_seconds is not None:
            _expect(_time(self.limit_seconds), "limit_seconds", self.limit_seconds, "seconds above 0")
        for name in ("seconds", "reference", "host_seconds"):
            self._keep_numbers(name, "seconds above 0", _time)
        self._keep_numbers("waited", "shares from 0 up", _share)
        # a run that was read is equal to the run that was written
        object.__setattr__(self, "parameters", {k: _as_tuple(v) for k, v in self.parameters.items()})

    def _keep_numbers(self, name: str, expected: str, right: Callable[[Any], bool]) -> None:
        """Make a tuple of floats of these numbers, one for each of `seconds`."""
        values = getattr(self, name)
        if values is None and name != "seconds":
            return
        _expect(isinstance(values, list | tuple) and len(values) > 0, name, values, f"a list of {expected}")
        for value in values:
            _expect(right(value), name, value, expected)
        n = len(self.seconds)
        _expect(len(values) == n, name, f"{len(values)} values", f"{n}, one for each of seconds")
        object.__setattr__(self, name, tuple(float(value) for value in values))

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the case in its run: suite, case and contender."""
        return self.suite, self.case, self.contender


@dataclass(frozen=True)
class Run:
    """All that was measured at one time.

    environment   what the times depend on: processor, threads, BLAS, versions, ...
    options       what was asked for: suites, quick, dtype, ...
    cases         in the order in which they are shown
    Raises        DataError if a case occurs twice
    """

    environment: Mapping[str, Any]
    options: Mapping[str, Any]
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        for name in ("environment", "options"):
            _expect(isinstance(getattr(self, name), Mapping), name, getattr(self, name), "names with values")
        object.__setattr__(self, "cases", tuple(self.cases))
        seen: set[tuple[str, str, str]] = set()
        for case in self.cases:
            if case.key in seen:
                raise DataError(f"{named(case)} occurs twice; expected each suite, case and contender once")
            seen.add(case.key)

    def of(self, suite: str) -> dict[str, list[Case]]:
        """Return what one suite measured: case -> its contenders, in order."""
        found: dict[str, list[Case]] = {}
        for case in self.cases:
            if case.suite == suite:
                found.setdefault(case.case, []).append(case)
        return found

    def as_json(self) -> str:
        """Return the run as JSON, which has no NaN."""
        head = {"format": FORMAT, "version": VERSION, "environment": self.environment, "options": self.options}
        cases = [json.dumps(asdict(case), allow_nan=False) for case in self.cases]
        text = json.dumps({**head, "cases": []}, indent=1, allow_nan=False)
        if not cases:
            return text
        return text.removesuffix("[]\n}") + "[\n  " + ",\n  ".join(cases) + "\n ]\n}"  # a line for each case

    @classmethod
    def from_json(cls, text: str, name: str) -> Run:
        """Return the run that `as_json` wrote; `name` is what an error calls the text.

        Raises   DataError for text that is no run, or one of another version, and for wrong values in it
        """
        try:
            return _run(_parsed(text))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write the run to `path`, whole or not at all.

        Raises   ConfigurationError if it cannot be written; an older file then stays as it was
        """
        return write(Path(path), self.as_json())


def write(place: Path, text: str) -> Path:
    """Write a text and an end of line, whole or not at all; raise ConfigurationError if it cannot be written."""
    try:
        with replacing(place) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {place} ({error.strerror}); choose another place") from error
    return place


def load(path: str | Path) -> Run:
    """Return the run that a file holds.

    Raises   DataError if there is none
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; expected one that `gpumlp bench` wrote") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"{path}: cannot be read ({reason}); expected a file that `gpumlp bench` wrote") from error
    return Run.from_json(text, str(path))


def named(case: Case) -> str:
    """Name a case in a message."""
    return f"{case.suite}: {case.case}: {case.contender}"


# ---------------------------------------------------------------- reading


def _parsed(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise DataError(f"holds {word}, expected numbers that are finite; measure again")

    def finite(word: str) -> float:
        value = float(word)
        return value if abs(value) < float("inf") else refuse(word)

    try:
        found = json.loads(text, parse_constant=refuse, parse_float=finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a character may stand in JSON, but in no other file
    except (json.JSONDecodeError, RecursionError) as error:
        place = f" ({error.msg} in line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"is no JSON, or was cut short{place}; expected a file that `gpumlp bench` wrote") from error
    except DataError:
        raise
    except ValueError as error:  # half a character, or a number of thousands of digits
        raise DataError(f"holds what no run does ({error}); expected a file that `gpumlp bench` wrote") from error
    return found


def _run(found: Any) -> Run:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f'is no benchmark: expected JSON with "format": "{FORMAT}", as `gpumlp bench` writes it')
    if found.get("version") != VERSION:
        raise DataError(
            f"has version {found.get('version')!r} of the format, expected {VERSION}; measure again with this gpumlp"
        )
    _expect_fields(found, {"format", "version", "environment", "options", "cases"})
    _expect(isinstance(found["cases"], list), "cases", found["cases"], "a list")
    cases = [_case(one, number) for number, one in enumerate(found["cases"], 1)]
    return Run(found["environment"], found["options"], tuple(cases))


def _case(found: Any, number: int) -> Case:
    try:
        _expect(isinstance(found, dict), "case", found, "names with values")
        _expect_fields(found, {field.name for field in fields(Case)})
        return Case(**found)
    except DataError as error:
        raise DataError(f"case {number}: {error}") from error


def _expect_fields(found: dict[str, Any], expected: set[str]) -> None:
    missing, more = sorted(expected - set(found)), sorted(set(found) - expected)
    if missing or more:
        lacking = [f"lacks {', '.join(missing)}"] if missing else []
        having = [f"has {', '.join(more)}, which means nothing"] if more else []
        raise DataError(f"{' and '.join(lacking + having)}; expected what `gpumlp bench` writes")


def _expect(right: bool, name: str, value: object, expected: str) -> None:
    if not right:
        shown = repr(value) if not isinstance(value, str) or name in ("suite", "kind", "unit") else value
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DataError(f"{name} is {shown}, expected {expected}; measure again")


# ---------------------------------------------------------------- values


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _time(value: Any) -> bool:
    return _share(value) and value > 0


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list | tuple) else value
