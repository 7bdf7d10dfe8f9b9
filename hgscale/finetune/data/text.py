"""Lines of annotation as drafts of contexts, checked: what MNRE and MORE share."""

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgscale.errors import DataError

SPLITS = ("train", "val", "test")

Span = tuple[int, int]
"""Tokens [start, end)."""

Node = Span | str
"""An entity by its span, or an object by its name."""


@dataclass(frozen=True)
class Link:
    """One instance of a file.

    Attributes:
        head, tail: as the file has them.
        relation: its name.
        instance: number of its line among all of the file, from 0.
    """

    head: Node
    tail: Node
    relation: str
    instance: int


@dataclass
class Draft:
    """A context on the way.

    Attributes:
        where: file and line that first says it.
        line: that line, from 1.
        tokens: of the text.
        image: name of its image.
        entities: names by span.
        pairs: by their two nodes.
        objects: of more: box (shares of the image: centre x, centre y, width, height) and label by name, in order.
    """

    where: str
    line: int
    tokens: tuple[str, ...]
    image: str
    entities: dict[Span, str] = field(default_factory=dict)
    pairs: dict[frozenset[Node], Link] = field(default_factory=dict)
    objects: dict[str, tuple[tuple[float, ...], str | None]] = field(default_factory=dict)


def find(root: Path, names: tuple[str, ...]) -> Path:
    """The first of some files that is there, in a folder or in ``txt`` below it.

    Raises:
        DataError: if none is.
    """
    for folder in (root, root / "txt"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    known = "is no folder" if not root.is_dir() else f"holds no {' or '.join(names)}"
    raise DataError(f"{root}: {known}; set data.root to the folder of the published files")


def read_contexts(path: Path, tail_of: Callable[[Any, str], Node] | None = None) -> list[Draft]:
    """The contexts of a file, in the order of their first lines.

    Args:
        path: one Python dict literal or JSON object a line: token, h and t ({name, pos}), img_id, relation.
        tail_of: reads ``t`` where it is no mention: (value, where) -> its node.

    Raises:
        DataError: naming the line.
    """
    drafts: dict[tuple[tuple[str, ...], str], Draft] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        values = _literal(line, where)
        tokens, image, relation = _plain(values, where)
        draft = drafts.setdefault((tokens, image), Draft(where, number, tokens, image))
        head = _mention(values, "h", tokens, where)
        draft.entities[head] = values["h"]["name"]
        tail: Node
        if tail_of is None:
            tail = span = _mention(values, "t", tokens, where)
            draft.entities[span] = values["t"]["name"]
        else:
            tail = tail_of(values["t"], where)
        _add(draft, Link(head, tail, relation, number - 1), where)
    if not drafts:
        raise DataError(f"{path}: holds no instance; every split needs at least one")
    return list(drafts.values())


def one_label_set(drafts: dict[str, list[Draft]], labels: tuple[str, ...], few: bool) -> None:
    """Refuse a relation that is not among the labels or, unless the data may be few, that training lacks.

    Raises:
        DataError: naming the first line of it.
    """
    known, trained = set(labels), {link.relation for draft in drafts["train"] for link in draft.pairs.values()}
    for split in SPLITS:
        for draft in drafts[split]:
            file = draft.where.rpartition(":")[0]
            for link in draft.pairs.values():
                where = f"{file}:{link.instance + 1}"
                if link.relation not in known:
                    raise DataError(
                        f"{where}: relation is {link.relation!r}; wanted one of the {len(labels)} labels "
                        f"{', '.join(labels[:3])}, ...; correct its spelling, or give files of one version"
                    )
                if link.relation not in trained and not few:
                    raise DataError(
                        f"{where}: relation {link.relation!r} is in {split} and not in train; wanted one set of "
                        "labels; give splits of one version of the data"
                    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and what is on them; tokens may hold what other line endings than this split at."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; give a readable file") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _literal(line: str, where: str) -> dict[str, Any]:
    try:
        values = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            values = json.loads(line)  # null, true, false
        except (ValueError, RecursionError):
            values = None
    if not isinstance(values, dict):
        raise DataError(
            f"{where}: is {line[:40]!r}...; wanted a dict literal with token, h, t, img_id, relation; is the file cut "
            "off? fetch it again"
        )
    for name in ("token", "h", "t", "img_id", "relation"):
        if name not in values:
            raise DataError(f"{where}: has no {name}; wanted token, h, t, img_id and relation")
    return values


def _plain(values: dict[str, Any], where: str) -> tuple[tuple[str, ...], str, str]:
    tokens, image, relation = values["token"], values["img_id"], values["relation"]
    if not (isinstance(tokens, list) and tokens and all(isinstance(token, str) for token in tokens)):
        raise DataError(f"{where}: token is {tokens!r:.60}; wanted a list of words")
    for name, value in (("img_id", image), ("relation", relation)):
        if not (isinstance(value, str) and value):
            raise DataError(f"{where}: {name} is {value!r}; wanted a name")
    return tuple(tokens), image, relation


def _mention(values: dict[str, Any], end: str, tokens: tuple[str, ...], where: str) -> Span:
    """The span of a mention, which must spell its name."""
    mention = values[end]
    name, span = (mention.get("name"), mention.get("pos")) if isinstance(mention, dict) else (None, None)
    good = isinstance(span, list | tuple) and len(span) == 2 and all(type(value) is int for value in span)
    if not isinstance(name, str) or not good:
        raise DataError(f"{where}: {end} is {mention!r:.80}; wanted a name and pos, two token numbers")
    assert span is not None
    start, stop = span
    if not 0 <= start < stop <= len(tokens):
        raise DataError(
            f"{where}: {end}.pos is [{start}, {stop}) of {len(tokens)} tokens; wanted 0 <= start < end <= "
            f"{len(tokens)}{_repair(name, tokens)}"
        )
    found = " ".join(tokens[start:stop])
    if found != name:
        raise DataError(
            f"{where}: {end}.name is {name!r}, but tokens [{start}, {stop}) are {found!r}; wanted them equal"
            f"{_repair(name, tokens)}"
        )
    return start, stop


def _repair(name: str, tokens: tuple[str, ...]) -> str:
    """Where a name does stand."""
    size = len(name.split(" "))
    for start in range(len(tokens) - size + 1):
        if " ".join(tokens[start : start + size]) == name:
            return f"; it stands at [{start}, {start + size}): are spans counted from 1, or their ends included?"
    return "; it stands nowhere in the text: correct the line"


def _add(draft: Draft, link: Link, where: str) -> None:
    """Take an instance into its context; one that repeats another word for word is taken once."""
    if link.head == link.tail:
        raise DataError(f"{where}: head and tail are both at {link.head}; wanted two different mentions")
    before = draft.pairs.setdefault(frozenset((link.head, link.tail)), link)
    if before.relation != link.relation:
        raise DataError(
            f"{where}: its pair is {link.relation!r} here and {before.relation!r} in line {before.instance + 1}; "
            "wanted one label a pair; remove one of the lines"
        )
