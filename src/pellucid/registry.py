"""One small registry, which methods, metrics and controls all use."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pellucid.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[Function]):
    """What an entry declares on the line above its function."""

    name: str
    function: Function
    family: str
    source: str
    needs: tuple[str, ...] = ()
    higher_is_better: bool | None = None
    range: tuple[float, float] | None = None
    missing: str = ""  # what it means where its value is missing

    @property
    def options(self) -> dict[str, object]:
        """The function's keyword-only parameters that have a default, with those defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}

    @property
    def summary(self) -> str:
        """First line of the function's docstring, as plain text."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0].replace("`", "")


@dataclass(frozen=True, repr=False)
class Choice(Generic[Function]):
    """An entry together with the options chosen for it."""

    entry: Entry[Function]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def own_options(self) -> dict[str, object]:
        """Those that the function takes; the others are the engine's."""
        return {name: value for name, value in self.options.items() if name in self.entry.options}

    @property
    def label(self) -> str:
        """The name, followed by the options that were given: `road[noise=0.0]`."""
        given = ",".join(f"{key}={_short(value)}" for key, value in sorted(self.options.items()))
        return f"{self.entry.name}[{given}]" if given else self.entry.name

    def __repr__(self) -> str:  # a choice may be another's option, which its label then names
        return self.label


def _short(value: object) -> str:
    """An option as a label shows it: a network, or what else takes several lines, by the name of its class."""
    text = str(value)
    return type(value).__name__ if "\n" in text else text


class Registry(Generic[Function]):
    """Named functions with what they declare.

    >>> scores: Registry[Callable[[float], float]] = Registry("score")
    >>> @scores.register("half", family="toy", source="none")
    ... def half(value: float, *, offset: float = 0.0) -> float:
    ...     return value / 2 + offset
    >>> scores["half"].function(3.0), scores.choose("half", offset=1.0).label
    (1.5, 'half[offset=1.0]')
    """

    def __init__(self, kind: str, shared: tuple[str, ...] = ()) -> None:
        """Arguments: what an entry is called, and options that every entry takes since the engine sees to them."""
        self.kind = kind
        self.shared = shared
        self._entries: dict[str, Entry[Function]] = {}

    def register(
        self,
        name: str,
        *,
        family: str,
        source: str,
        needs: tuple[str, ...] = (),
        higher_is_better: bool | None = None,
        range: tuple[float, float] | None = None,
        missing: str = "",
    ) -> Callable[[Function], Function]:
        """Declare the function below; raises InputError when the name is taken."""

        def declare(function: Function) -> Function:
            if name in self._entries:
                raise InputError(f"{self.kind} {name!r} is registered already, by {self._entries[name].function!r}.")
            self._entries[name] = Entry(name, function, family, source, needs, higher_is_better, range, missing)
            return function

        return declare

    def __getitem__(self, name: str) -> Entry[Function]:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[Function]]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def names(self, family: str | None = None) -> tuple[str, ...]:
        """All names, or those of one family, in the order of registration."""
        return tuple(entry.name for entry in self if family in (None, entry.family))

    def choose(self, name: str, **options: object) -> Choice[Function]:
        """An entry with options; an unknown option is refused with the nearest known one."""
        entry = self[name]
        for option in options:
            if option not in entry.options and option not in self.shared:
                raise unknown_name(f"option of {self.kind} {name!r}", option, [*entry.options, *self.shared])
        return Choice(entry, dict(options))

    def resolve(self, choice: str | Choice[Function]) -> Choice[Function]:
        """A bare name means its defaults, and a label the choice that bears it; a choice is returned as it is."""
        return self.from_label(choice) if isinstance(choice, str) else choice

    def from_label(self, label: str) -> Choice[Function]:
        """The choice that bears a label, where its options are numbers, words and tuples of them.

        Raises UnknownNameError for a name or an option that isn't known.
        """
        name, _, given = label.removesuffix("]").partition("[")
        options = {}
        for part in re.split(r",(?=\w+=)(?![^\[]*\])", given) if given else []:  # not inside another's brackets
            option, _, value = part.partition("=")
            try:
                options[option] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                options[option] = value
        return self.choose(name, **options)

    def table(self) -> pd.DataFrame:
        """A row per entry: name, family, needs, better, options, source, summary.

        Where entries declare them, `range` (of the values) and `missing` (what it means where there is none) as well.
        """
        import pandas as pd

        better = {True: "higher", False: "lower", None: ""}
        rows = [
            {
                "name": entry.name,
                "family": entry.family,
                "needs": ", ".join(entry.needs),
                "better": better[entry.higher_is_better],
                "range": _span(entry.range),
                "options": ", ".join(f"{key}={value!r}" for key, value in entry.options.items()),
                "missing": entry.missing,
                "source": entry.source,
                "summary": entry.summary,
            }
            for entry in self
        ]
        columns = ["name", "family", "needs", "better", "range", "options", "missing", "source", "summary"]
        unused = [column for column in ("range", "missing") if not any(row[column] for row in rows)]
        return pd.DataFrame(rows, columns=[column for column in columns if column not in unused])


def _span(range: tuple[float, float] | None) -> str:
    """The range of a value in words.

    >>> _span((0, 1)), _span((0, float("inf")))
    ('0 to 1', '0 to ∞')
    """
    return "" if range is None else " to ".join(f"{end:g}".replace("inf", "∞") for end in range)
