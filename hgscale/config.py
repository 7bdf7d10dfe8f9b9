"""How anything is configured: YAML plus dotted overrides -> frozen dataclasses; and what a config's fingerprint is.

A field is documented by the string below it; ``--help`` and MLflow read that. A field whose type is a dataclass, or
``Optional`` of one, is a section. What a field may hold beyond its type is checked by its owner's ``__post_init__``.
"""

import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import operator
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from hgscale.errors import ConfigError

set_parsing_settings(docstring_parse_attribute_docstrings=True)

T = TypeVar("T")

READS = {"hgscale.path": "reads"}
"""``field(metadata=READS)``: the field names a file or folder that is read; a job on a cluster needs it there."""

NAMED = {"hgscale.path": "named"}
"""The same of a field that may also hold a name, which is no path: on a hub, or in a package."""

WRITES = {"hgscale.path": "writes"}
"""``field(metadata=WRITES)``: the field names a place that is written."""

RESULT = {"hgscale.path": "result"}
"""The same of the place of a verb's results: a job on a cluster would lose them without it."""


def parser_for(schema: type, verb: str | None = None) -> ArgumentParser:
    """A command-line parser for one config dataclass: ``--config FILE``, ``--print_config``, one option per field."""

    class Help(DefaultHelpFormatter):
        """Leaves out ``--section FILE``, which would pass by the checks of ``_read``."""

        def add_argument(self, action: Any) -> None:
            if not _is_plain_section(field_types(schema).get(action.dest)):
                super().add_argument(action)

    parser = ArgumentParser(
        prog=f"hgscale {verb}" if verb else "hgscale",
        usage="%(prog)s --config FILE [--section.key value ...]",
        description=(schema.__doc__ or "").strip().partition("\n")[0],
        exit_on_error=False,
        default_env=False,
        formatter_class=Help,
    )
    parser.add_argument("--config", action="config", help="YAML file of any fields below; options override it.")
    parser.add_class_arguments(schema, as_group=False)
    return parser


def parse(schema: type[T], args: Sequence[str], verb: str | None = None, also_known: type | None = None) -> T:
    """Parse command-line arguments into a config.

    Options override files, wherever they stand, and a later file overrides an earlier one, field by field; a
    dict-typed field counts as one field in a file, while ``--field.key value`` sets one key of it, to a value in YAML
    (the key may hold dots, where a dict's keys are names of fields).

    Args:
        schema: the config dataclass.
        args: as in ``sys.argv[1:]``.
        verb: named in ``--help``.
        also_known: another schema whose fields are accepted in files, and dropped, where ``schema`` has none of the
            name: so one verb can read the file of another.

    Raises:
        ConfigError: naming the file or option and the field, and the nearest known name where a field is unknown.
    """
    paths, options = _split(schema, args)
    options, entries = _entries(schema, options)
    trees = [(path, _read(path, schema, also_known)) for path in paths]
    parser = parser_for(schema, verb)
    files = [f"--config={_to_yaml(tree)}" for _, tree in trees]
    printing = [option for option in options if entries and option.startswith("--print_config")]
    try:
        values = parser.parse_args([*files, *(option for option in options if option not in printing)]).as_dict()
    except ArgumentError as error:
        raise ConfigError(_explain(str(error), schema, trees, options)) from None
    for name, key, value in entries:
        *sections, leaf = name.split(".")
        holder = functools.reduce(operator.getitem, sections, values)
        before = holder[leaf]
        holder[leaf] = _with_key(before if isinstance(before, Mapping) else {}, key, value)
    if printing:
        parser.parse_args([f"--config={_to_yaml(json.loads(json.dumps(values, default=_plain)))}", *printing])
    try:
        return cast(T, _build(schema, values))
    except ConfigError as error:
        raise ConfigError(_placed(str(error), schema, trees, entries)) from None


def load(schema: type[T], path: str | Path, /, also_known: type | None = None, **overrides: Any) -> T:
    """Load a config from YAML; overrides are dotted fields with double underscores: ``world__num_nodes=50``."""
    args = ["--config", str(path)]
    for name, value in overrides.items():
        text = str(value) if isinstance(value, str | Path) else json.dumps(value)
        args.append(f"--{name.replace('__', '.')}={text}")
    return parse(schema, args, also_known=also_known)


def from_mapping(schema: type[T], tree: Mapping[str, Any], name: str) -> T:
    """A config from a mapping of its fields, nested or dotted, checked as a file is.

    Args:
        schema: the config dataclass.
        tree: what is left out has its default.
        name: what the fields stand under, as "base": in an error they are ``base.world.num_nodes``.

    Raises:
        ConfigError: naming the field, and the nearest known name where it is unknown.
    """
    holder = _holder_of(cast(Any, schema), name)
    nested: dict[str, Any] = {}
    _put(nested, holder, name, tree, "")
    kept = _prune(nested, holder, None)
    try:
        namespace = parser_for(holder).parse_args([f"--config={_to_yaml(kept)}"])
    except ArgumentError as error:
        raise ConfigError(_explain(str(error), holder, [(None, kept)], [])) from None
    return cast(T, getattr(_build(holder, namespace.as_dict()), name))


@cache
def _holder_of(schema: type, name: str) -> type:
    """A config whose one section is another config."""
    return dataclasses.make_dataclass(name, [(name, schema)], frozen=True, kw_only=True)


def _put(tree: dict[str, Any], schema: type, name: str, value: Any, prefix: str) -> None:
    """Set a field by dotted name in nested mappings; ``{"a": {"b": 1}}`` and ``{"a.b": 1}`` come to the same."""
    head, dot, rest = name.partition(".")
    hint = field_types(schema).get(head)
    section = _section(hint)
    inner: Mapping[str, Any] | None = None
    if (section or _takes_any_key(hint)) and dot:
        inner = {rest: value}
    elif (section or _takes_any_key(hint)) and isinstance(value, Mapping):
        inner = value
    elif section and value is None and not _is_nullable(hint):
        inner = {}  # a bare header
    if inner is None:
        if tree.get(name) is not None:
            raise ConfigError(f"{prefix}{name} is given twice, as a section's field and by its dotted name; drop one")
        tree[name] = value
        return
    below = tree.get(head)
    if below is None:
        below = tree[head] = {}
    if not isinstance(below, dict):
        raise ConfigError(f"{prefix}{head} is {below!r}, and {prefix}{name} is given, too; drop one")
    for key, item in inner.items():
        if section:
            _put(below, section, str(key), item, f"{prefix}{head}.")
        else:
            below[key] = item


def with_fields(config: T, changes: Mapping[str, Any]) -> T:
    """A config with other values of some fields, by dotted name; names and values are checked as those of a file.

    Raises:
        ConfigError: for a name that is no field (with the nearest one), or a value of another type.
    """
    schema: Any = type(config)
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        if complaint := _unknown(name, schema):
            raise ConfigError(complaint)
        hint = field_types(schema).get(name, Any)  # Any: a key of a dict-typed field
        if _is_plain_section(hint):
            raise ConfigError(f"{name} is a section; set its fields one by one, as {name}.field")
        checked[name] = _checked(hint, name, value)
    return cast(T, _replaced(config, checked))


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config or dict with some values, by dotted name, changed; all of a section at once, so that they fit."""
    if isinstance(config, Mapping):
        return functools.reduce(lambda tree, change: _with_key(tree, *change), changes.items(), config)
    inner: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if rest and values.get(head, getattr(config, head)) is None:
            raise ConfigError(f"{name}: {head} is null, and has no fields; set all of it, as {head}: {{{rest}: ...}}")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            values[head] = value
    below = {head: _replaced(values.get(head, getattr(config, head)), rests) for head, rests in inner.items()}
    return dataclasses.replace(config, **(values | below))


def _checked(hint: Any, name: str, value: Any) -> Any:
    """A value as its field's type has it, or a ConfigError."""
    try:
        parsed = _value_parser(hint).parse_object({"value": _whole(hint, value)}).value
    except ArgumentError:
        raise ConfigError(f"{name} is {value!r}; {_type_text(hint)} is wanted") from None
    section = _section(hint)
    return _build(section, parsed.as_dict()) if section and isinstance(parsed, Namespace) else parsed


@cache
def _value_parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_argument("--value", type=hint)
    return parser


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain nested dicts, lists and scalars."""
    plain: dict[str, Any] = json.loads(json.dumps(config, default=_plain))
    return plain


def yaml_text(config: Any) -> str:
    """A resolved config as YAML that ``load`` reads back."""
    return _to_yaml(to_dict(config))


def save(config: Any, path: Path) -> None:
    """Write ``yaml_text``."""
    path.write_text(yaml_text(config))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def fingerprint(sections: Mapping[str, Any]) -> str:
    """16 hex digits that change exactly when a value in the sections does; the order of keys does not matter."""
    text = json.dumps(sections, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def field_types(schema: type, prefix: str = "") -> dict[str, Any]:
    """The type of every field of a config dataclass by dotted name, sections included."""
    named: dict[str, Any] = {}
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        hint = named[prefix + field.name] = hints[field.name]
        if section := _section(hint):
            named.update(field_types(section, f"{prefix}{field.name}."))
    return named


def split_options(schema: type, args: Sequence[str]) -> tuple[list[str], list[str]]:
    """(Options of a schema, everything else), each with its values. A switch without a value, as --no_wait, is on."""
    fields = field_types(schema)
    own: list[str] = []
    others: list[str] = []
    place = others
    for word in args:
        if word.startswith("--"):
            place = own if word.removeprefix("--").partition("=")[0] in fields else others
        place.append(word)
    switches = {f"--{name}" for name, hint in fields.items() if hint is bool}
    for at in reversed(range(len(own))):
        if own[at] in switches and (at + 1 == len(own) or own[at + 1].startswith("--")):
            own[at] += "=true"
    return own, others


def path_fields(schema: Any, prefix: str = "") -> dict[str, str]:
    """The fields that are marked as paths, by dotted name, and the kind of each: reads, named, writes or result."""
    hints, found = typing.get_type_hints(schema), {}
    for field in dataclasses.fields(schema):
        if (mark := field.metadata.get("hgscale.path")) is not None:
            found[prefix + field.name] = str(mark)
        if section := _section(hints[field.name]):
            found.update(path_fields(section, f"{prefix}{field.name}."))
    return found


def refuse_ignored(config: Any, names: Iterable[str], where: str, because: str) -> None:
    """Refuse fields that are set to other than their defaults where they have no meaning.

    Args:
        config: a section.
        names: its fields that mean nothing here.
        where: its dotted name, as "world".
        because: what makes them mean nothing, as "world.weights=two_level".

    Raises:
        ConfigError: naming the field, its value and the repair.
    """
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config)
    }
    changed = because.partition("=")[0]
    for name in names:
        if (value := getattr(config, name)) != defaults[name]:
            raise ConfigError(
                f"{where}.{name}={value} has no meaning with {because}; leave it out, or change {changed}"
            )


def runs_home() -> Path:
    """Where runs go unless a config says otherwise: ``$HGSCALE_HOME`` or ``runs``; absolute."""
    return Path(os.environ.get("HGSCALE_HOME", "runs")).absolute()


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables of the environment that are set while this lasts: what this process does later must not find them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Loader(yaml.SafeLoader):
    """Reads 3e-4 as a number, which YAML 1.1 calls text."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that looks like 3e-4, so that it comes back as text."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def _to_yaml(tree: Mapping[str, Any]) -> str:
    return yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False)


def _plain(value: Any) -> Any:
    """What json is to write for a value that it does not know."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)


def _members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _section(hint: Any) -> type | None:
    """The dataclass behind a field's type; None for a plain field."""
    return next((m for m in _members(hint) if isinstance(m, type) and dataclasses.is_dataclass(m)), None)


def _is_nullable(hint: Any) -> bool:
    return hint is Any or type(None) in _members(hint)


def _is_plain_section(hint: Any) -> bool:
    """A section that is always there, so that nothing but its fields can be set."""
    return _section(hint) is not None and not _is_nullable(hint)


def _takes_any_key(hint: Any) -> bool:
    """Whether a field is dict-typed, so that its inside is not checked here."""
    return any((typing.get_origin(member) or member) in (dict, Mapping) for member in _members(hint))


def _is_list(hint: Any) -> bool:
    return any((typing.get_origin(member) or member) is list for member in _members(hint))


def _split(schema: type, args: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separate config files from options, refusing unknown options; each option as one word ``--name=value``."""
    words: list[str] = []
    for arg in args:
        if not arg.startswith("--") and words and re.fullmatch(r"--[^=]+(?<!help)(?<!print_config)", words[-1]):
            words[-1] += f"={arg}"
        else:
            words.append(arg)
    paths: list[Path] = []
    options: list[str] = []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name == "config":
            if not value:
                raise ConfigError("--config names no file; give a YAML file")
            paths.append(Path(value))
        elif not word.startswith("--") or name == "print_config" or name.endswith("help") or not name:
            options.append(word)
        elif complaint := _unknown(name.rstrip("+"), schema):
            raise ConfigError(f"--{complaint}")
        elif _is_plain_section(field_types(schema).get(name)):
            raise ConfigError(f"{word}: {name} is a section; set its fields one by one, as --{name}.field=value")
        elif _is_list(field_types(schema).get(name)) and not value.startswith("["):
            options.append(f"--{name.rstrip('+')}+={value}")  # one more item, each time the option is given
        else:
            options.append(f"--{name}{equals}{_whole(field_types(schema).get(name), value)}")
    return paths, options


def _entries(schema: type, options: Sequence[str]) -> tuple[list[str], list[tuple[str, str, Any]]]:
    """Separate options that set one key of a dict-typed field: (field, key, value) each."""
    fields = field_types(schema)
    plain: list[str] = []
    entries: list[tuple[str, str, Any]] = []
    for option in options:
        name, equals, text = option.removeprefix("--").partition("=")
        holder = _holder(name, fields)
        if not holder or not equals:
            plain.append(option)
            continue
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            raise ConfigError(f"{option}: its value is not YAML; quote it, or write a list as [1, 2]") from None
        entries.append((holder, name.removeprefix(f"{holder}."), value))
    return plain, entries


def _with_key(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A mapping with one key set; a dotted key is set inside the mapping that its first part names, if there is one."""
    head, dot, rest = key.partition(".")
    if key not in tree and dot and isinstance(tree.get(head), Mapping):
        return {**tree, head: _with_key(tree[head], rest, value)}
    return {**tree, key: value}


def _placed(
    complaint: str,
    schema: type,
    trees: Sequence[tuple[Path, Mapping[str, Any]]],
    entries: Sequence[tuple[str, str, Any]],
) -> str:
    """A complaint about what is inside a dict-typed field, with the option or the file that it stands in."""
    name = re.split(r"[\s=:]", complaint, maxsplit=1)[0]
    if not _holder(name, field_types(schema)):
        return complaint
    if any(f"{holder}.{key}.".startswith(f"{name}.") for holder, key, _ in entries):
        return f"--{complaint}"
    for path, tree in reversed(trees):
        if any(f"{known}.".startswith(f"{name}.") for known in flatten(tree)):
            return f"{path}: {complaint}"
    return complaint


def _holder(name: str, fields: Mapping[str, Any]) -> str | None:
    """The dict-typed field inside which a dotted name lies, if any."""
    heads = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
    return next((head for head in heads if _takes_any_key(fields.get(head))), None)


def _read(path: Path, schema: type, also_known: type | None) -> dict[str, Any]:
    """Read a config file, refusing what is missing, is not a mapping, or has unknown fields."""
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {_one_line(str(error))}") from None
    try:
        return _prune({} if tree is None else tree, schema, also_known)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _prune(tree: Any, schema: type, also_known: type | None, prefix: str = "") -> dict[str, Any]:
    """The part of a file's tree that belongs to a schema; the rest must be known to the other one."""
    if not isinstance(tree, Mapping):
        where = f"{prefix[:-1]} is" if prefix else "holds"
        raise ConfigError(f"{where} {tree!r}; a mapping of fields is wanted")
    fields = field_types(schema)
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name not in fields:
            if also_known is None or _unknown(name, also_known):
                raise ConfigError(_unknown(name, schema))
            if _section(field_types(also_known).get(name)) and value is not None:
                _prune(value, also_known, None, f"{name}.")
        elif value is None and not _is_nullable(fields[name]):
            # A section's bare header, all its fields left out, means its defaults.
            if not _section(fields[name]):
                raise ConfigError(f"{name} is null; {_type_text(fields[name])} is wanted")
        elif _section(fields[name]) and value is not None:
            kept[key] = _prune(value, schema, also_known, f"{name}.")
        else:
            kept[key] = _whole(fields[name], value)
    return kept


def _unknown(name: str, schema: type) -> str | None:
    """The complaint about an unknown dotted name, or None when it is known."""
    fields = field_types(schema)
    leaf = name.rpartition(".")[2]
    if name in fields or _holder(name, fields):
        return None
    # A field whose section was mistaken or left out is the nearest if its own name is right.
    same_leaf = [known for known in fields if known.rpartition(".")[2] == leaf]
    near = difflib.get_close_matches(name, same_leaf or fields, n=1, cutoff=0.0 if same_leaf else 0.6)
    hint = f"did you mean {near[0]}?" if near else f"fields are {', '.join(f for f in fields if '.' not in f)}"
    return f"{name} is not a field; {hint}"


def _whole(hint: Any, value: Any) -> Any:
    """1e6 is a whole number where an int is wanted, though YAML reads it as a float."""
    if int not in _members(hint) or float in _members(hint):
        return value
    if isinstance(value, float) or (isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE]\+?\d+", value)):
        number = float(value)
        return int(number) if number.is_integer() else value
    return value


def _explain(
    error: str, schema: type, trees: Sequence[tuple[Path | None, Mapping[str, Any]]], options: Sequence[str]
) -> str:
    """One line for jsonargparse's refusal: where the value stands, what it is, and the type that is wanted."""
    # An optional section is refused as a whole, with the complaint about its field inside.
    names = itertools.accumulate(re.findall(r'Parser key "([^"]+)"', error), "{}.{}".format)
    name = next((name for name in reversed(list(names)) if name in field_types(schema)), None)
    if name is None:
        return _one_line(error)
    wanted = f"{_type_text(field_types(schema)[name])} is wanted"
    for option in reversed(options):
        if option.startswith(f"--{name}="):
            return f"{option}: {wanted}"
    for path, tree in reversed(trees):
        for known, value in flatten(tree).items():
            if f"{known}.".startswith(f"{name}."):
                return f"{f'{path}: ' if path else ''}{known} is {value!r}; {wanted}"
    return _one_line(error)


def _type_text(hint: Any) -> str:
    """A field's type as a user reads it."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if len(_members(hint)) > 1:
        return " or ".join(map(_type_text, _members(hint)))
    if hint is type(None):
        return "null"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _build(schema: type, values: Mapping[str, Any]) -> Any:
    """Make the nested frozen dataclasses out of parsed values; their own checks raise ConfigError."""
    arguments = {}
    for field in dataclasses.fields(schema):
        value = values[field.name]
        section = _section(field_types(schema)[field.name])
        arguments[field.name] = _build(section, value) if section and isinstance(value, Mapping) else value
    return schema(**arguments)


def _one_line(text: str) -> str:
    return " ".join(text.split())
