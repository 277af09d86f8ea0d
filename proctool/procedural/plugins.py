"""Tasks from other packages, which list their modules in the entry point group `proctool.tasks`.

If a package cannot be loaded, only its own tasks are missing.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from proctool.errors import one_line
from proctool.signals import Stopped

ENTRY_POINT_GROUP = "proctool.tasks"


@dataclass(frozen=True)
class Package:
    """An installed distribution with tasks."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class BrokenPlugin:
    """An entry point whose tasks could not be loaded."""

    package: str
    entry: str
    """By convention the name of its task; empty if it could not be read."""
    reason: str

    def __str__(self) -> str:
        which = f'"{self.entry}" ' if self.entry else ""
        return one_line(
            f"the package {self.package} offers tasks {which}that cannot be loaded ({self.reason}); "
            "update or uninstall it"
        )


@dataclass(frozen=True)
class Plugins:
    """The result of loading the entry points."""

    broken: tuple[BrokenPlugin, ...]
    modules: Mapping[str, Package]
    """The package of each entry point's module."""

    def package(self, module: str) -> Package:
        """The package of a module: that of the nearest entry point, or one without version if there is none."""
        named = [known for known in self.modules if f"{module}.".startswith(f"{known}.")]
        found = self.modules.get(max(named, key=len)) if named else None
        if found is None:  # another module than the entry point's, or a script
            top = module.partition(".")[0]
            found = next((each for known, each in self.modules.items() if known.partition(".")[0] == top), None)
        return found or Package(module, "")


def load_plugins(registered: MutableMapping[str, Any]) -> Plugins:
    """Import every entry point, which fills `registered`. Tasks of failed entry points are removed again."""
    broken: list[BrokenPlugin] = []
    modules: dict[str, Package] = {}
    for distribution, entry in _entry_points():
        if isinstance(entry, BrokenPlugin):
            broken.append(entry)
            continue
        package = distribution.name
        before = dict(registered)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                loaded = entry.load()
            if not _gave_tasks(entry, loaded, before, registered):
                raise TypeError("it registers no task; decorate a Task with @task")
        except Stopped:
            raise
        except (Exception, SystemExit) as error:  # a module of another package may raise anything
            registered.clear()
            registered.update(before)
            broken.append(BrokenPlugin(package, entry.name, f"{type(error).__name__}: {error}"))
        else:
            modules.setdefault(entry.module, Package(package, distribution.version))
    return Plugins(tuple(broken), modules)


def _gave_tasks(entry: metadata.EntryPoint, loaded: Any, before: Any, registered: Any) -> bool:
    if registered.keys() - before.keys() or any(loaded is cls for cls in registered.values()):
        return True
    return any(f"{cls.__module__}.".startswith(f"{entry.module}.") for cls in registered.values())


def _entry_points() -> Iterator[tuple[metadata.Distribution, metadata.EntryPoint | BrokenPlugin]]:
    """The entry points of the group with their distributions. A damaged distribution must not hide the others."""
    seen = set()
    for distribution in metadata.distributions():
        package = "with an unreadable name"
        try:
            package = distribution.name
            entries = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
        except Exception as error:  # damaged metadata can raise many errors
            if ENTRY_POINT_GROUP in _text(distribution):
                yield distribution, BrokenPlugin(package, "", f"its entry_points.txt is damaged: {error}")
            continue
        for entry in entries:
            if (package, entry.name) not in seen:  # a distribution may be on the path twice; the first counts
                seen.add((package, entry.name))
                yield distribution, entry


def _text(distribution: metadata.Distribution) -> str:
    with contextlib.suppress(Exception):
        return distribution.read_text("entry_points.txt") or ""
    return ""
