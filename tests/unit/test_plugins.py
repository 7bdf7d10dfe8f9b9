"""Import paths in configs: found, refused in one line, called with what they name, and known by their source."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from hgscale import plugins
from hgscale.errors import ConfigError


def adapt(path: str, found: Any) -> Callable[..., Any]:
    if not callable(found):
        raise ConfigError(f"world.generator={path} is no function")
    return found


TABLE: plugins.Table[Callable[..., Any]] = plugins.Table("generator", {"gnm": max, "star": min}, adapt)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module outside the package, whose source can be given anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str, name: str = "own_thing") -> str:
        (tmp_path / f"{name}.py").write_text(source)
        sys.modules.pop(name, None)
        return name

    yield write
    for name in ("own_thing", "broken_thing"):
        sys.modules.pop(name, None)


def test_a_table_knows_its_short_names_and_any_import_path(module):
    name = module("def make(): return 7\n")
    assert TABLE.get("gnm", "world.generator") is max
    assert TABLE.get(f"{name}:make", "world.generator")() == 7
    assert list(TABLE) == ["gnm", "star"]
    assert "gnm" in TABLE
    assert f"{name}:make" not in TABLE


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gmn", "world.generator=gmn is no generator; did you mean gnm?"),
        ("other", "world.generator=other is no generator; use gnm, star, or package.module:name"),
        ("own_thing:mak", "world.generator=own_thing:mak: own_thing has no mak; did you mean own_thing:make?"),
        ("own_thing:zzz", "world.generator=own_thing:zzz: own_thing has no zzz; name something that is defined there"),
        ("own_thing:NUMBER", "world.generator=own_thing:NUMBER is no function"),
        (
            "own_thing:a.b",
            "world.generator=own_thing:a.b is no import path; write package.module:name, and define it there",
        ),
        (
            "not_there:f",
            "world.generator=not_there:f: not_there cannot be imported (ModuleNotFoundError: No module named "
            "'not_there'); install it on every node, or set PYTHONPATH",
        ),
    ],
)
def test_what_a_field_cannot_name_is_refused_in_one_line(module, name, line):
    module("NUMBER = 3\ndef make(): return 7\n")
    with pytest.raises(ConfigError) as refusal:
        TABLE.get(name, "world.generator")
    assert str(refusal.value) == line


def test_a_module_that_breaks_as_it_is_imported_is_one_line(module):
    name = module("raise RuntimeError('no\\nluck')\n", "broken_thing")
    with pytest.raises(ConfigError, match=r"broken_thing cannot be imported \(RuntimeError: no luck\)"):
        TABLE.get(f"{name}:f", "world.generator")


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "own_thing.py").write_text("THERE = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "own_thing", raising=False)
    assert plugins.imported("own_thing:THERE", "x") == 1
    sys.modules.pop("own_thing")


def test_a_plug_in_is_given_what_it_names_of_what_is_offered_and_all_of_its_own():
    def own(num_nodes: int, extra: int = 0) -> None: ...
    def anything(**values: int) -> None: ...

    offered = {"num_nodes": 5, "seed": 1}
    assert plugins.arguments(own, offered, {"extra": 2}, "a:own", "world.config") == {"num_nodes": 5, "extra": 2}
    assert plugins.arguments(anything, offered, {"extra": 2}, "a:any", "world.config") == {"extra": 2}


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            {"num_nodes": 3, "p": 1},
            "world.config.num_nodes: a:f gets num_nodes from hgscale; leave it out of world.config",
        ),
        ({"q": 3, "p": 1}, "world.config.q: a:f has no such argument; it takes num_nodes, p"),
        ({}, "a:f needs p; give world.config.p"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(own, line):
    def f(num_nodes: int, p: float) -> None: ...

    with pytest.raises(ConfigError) as refusal:
        plugins.arguments(f, {"num_nodes": 5, "seed": 1}, own, "a:f", "world.config")
    assert str(refusal.value) == line


def test_the_names_of_arguments_leave_out_what_has_none():
    def f(a: int, /, b: int, *c: int, d: int, **e: int) -> None: ...

    assert plugins.keywords(f) == ("b", "d")
    assert plugins.keywords(dict.fromkeys) == ()


def test_a_plug_in_is_identified_by_its_path_and_the_source_of_its_file(module):
    name = module("def f(): return 1\n")
    first = plugins.identified(f"{name}:f", "x")
    assert first.startswith("own_thing:f@")
    assert plugins.identified(f"{name}:f", "x") == first
    module("def f(): return 2\n")
    assert plugins.identified(f"{name}:f", "x") != first
    assert plugins.identified("gnm", "x") == "gnm"
