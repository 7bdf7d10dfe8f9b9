"""What a config names: something built in, by a short name, or anybody's, by an import path ``package.module:name``.

Both stand in one table per kind (``Table``), so that what is built in has no other way in than what is not.
"""

import difflib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from hgscale.errors import ConfigError, HgscaleError, RunError

T = TypeVar("T")

FAILURES = (Exception, SystemExit)
"""What a user's own code may raise. SystemExit, too: it would end a run in silence, as if it were done."""


class Table(Generic[T]):
    """The things of one kind that a field of a config may name."""

    def __init__(self, kind: str, built_in: Mapping[str, T], adapt: Callable[[str, Any], T]) -> None:
        """Make a table.

        Args:
            kind: what its things are, in an error: "generator".
            built_in: the things that come with the package, by short name.
            adapt: (import path, object found there) -> a thing; raises ConfigError, naming the missing member of the
                protocol, if it is none.
        """
        self.kind, self._built_in, self._adapt = kind, dict(built_in), adapt

    def __iter__(self) -> Iterator[str]:
        """The short names."""
        return iter(self._built_in)

    def __contains__(self, name: object) -> bool:
        """Whether a short name is built in."""
        return name in self._built_in

    def get(self, name: str, where: str) -> T:
        """The thing that a field names.

        Args:
            name: short, or an import path.
            where: the field, as "world.generator".

        Raises:
            ConfigError: if there is none, with the nearest short name; or it cannot be imported, or is no such thing.
        """
        if name in self._built_in:
            return self._built_in[name]
        if is_path(name):
            return self._adapt(name, imported(name, where))
        if ":" in name:
            raise ConfigError(f"{where}={name} is no import path; write package.module:name, and define it there")
        near = difflib.get_close_matches(name, self._built_in, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(self._built_in)}, or package.module:name"
        raise ConfigError(f"{where}={name} is no {self.kind}; {hint}")


def keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments of a function, in order; none where it does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some of C
        return ()
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY))


def arguments(
    function: Callable[..., Any], offered: Mapping[str, Any], own: Mapping[str, Any], path: str, where: str
) -> dict[str, Any]:
    """What a plug-in is called with: of what the package offers the arguments that it names, and all of its own.

    Args:
        function: the plug-in.
        offered: values by name.
        own: what the user's config gives it.
        path: its import path.
        where: the dict-typed field that holds its own, as "world.config".

    Raises:
        ConfigError: for one of its own that it does not take, or that the package gives; or one that it lacks.
    """
    named = keywords(function)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in own:
        if name in offered:
            raise ConfigError(f"{where}.{name}: {path} gets {name} from hgscale; leave it out of {where}")
        if name not in named and not takes_any:
            raise ConfigError(f"{where}.{name}: {path} has no such argument; it takes {', '.join(named) or 'none'}")
    given = {name: value for name, value in offered.items() if name in named} | dict(own)
    for p in parameters:
        if p.name in named and p.default is p.empty and p.name not in given:
            raise ConfigError(f"{path} needs {p.name}; give {where}.{p.name}")
    return given


@contextmanager
def late_failures(where: str) -> Iterator[None]:
    """What a plug-in's own code raises after its trial, when there is a trained model, as one line.

    Raises:
        RunError: in its place.
    """
    try:
        yield
    except HgscaleError:
        raise
    except FAILURES as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(
            f"{where} fails ({reason}), though it passed its trial; mend it: the model is kept, and `hgscale recover` "
            "reads it"
        ) from error


def is_path(name: str) -> bool:
    """Whether a name is an import path, ``package.module:name``."""
    module, colon, leaf = name.partition(":")
    return bool(colon) and leaf.isidentifier() and all(part.isidentifier() for part in module.split("."))


def imported(path: str, where: str) -> Any:
    """The object at an import path; the working directory is searched last, as ``python -m`` would.

    Raises:
        ConfigError: if the module cannot be imported, or has no such name.
    """
    module, _, leaf = path.partition(":")
    _search_here()
    try:
        holder = importlib.import_module(module)
    except FAILURES as error:  # whatever the module's own code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(
            f"{where}={path}: {module} cannot be imported ({reason}); install it on every node, or set PYTHONPATH"
        ) from None
    if not hasattr(holder, leaf):
        near = difflib.get_close_matches(leaf, dir(holder), n=1)
        hint = f"; did you mean {module}:{near[0]}?" if near else "; name something that is defined there"
        raise ConfigError(f"{where}={path}: {module} has no {leaf}{hint}")
    return getattr(holder, leaf)


def identity(path: str, where: str) -> str:
    """What a plug-in is, for a fingerprint: its import path, and a hash of the file that defines it.

    What that file imports is not looked at.
    """
    module, _, _ = path.partition(":")
    imported(path, where)
    try:
        source = Path(str(inspect.getsourcefile(sys.modules[module]))).read_bytes()
    except (OSError, TypeError):
        source = repr(getattr(sys.modules[module], "__version__", "")).encode()  # compiled
    return f"{path}@{hashlib.sha256(source).hexdigest()[:16]}"


def identified(name: str, where: str) -> str:
    """``identity`` of an import path; a short name is itself."""
    return identity(name, where) if is_path(name) else name


def _search_here() -> None:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
