"""Worlds in files: six formats are read into a ``Hypergraph``, two are written.

==========  ==========================================================================================================
pairs       CSV with header ``u,v,weight`` or ``u,v``; nodes are integers from 0.
simplices   Benson's timestamped simplices: ``X-nverts.txt``, ``X-simplices.txt``, optional ``X-times.txt`` and
            ``X-node-labels.txt``, each also as ``.gz``; the path is their folder or the prefix X. Nodes count from 1.
edges       One edge per line, nodes separated by commas, or else by tabs, or else by spaces; numbers or names.
facts       One n-ary fact per line: relation, then entities, separated by tabs, or else by spaces (JF17K).
statements  One hyper-relational statement per CSV line: ``h,r,t[,qr,qe]*`` (WD50K).
hif         Hypergraph Interchange Format (github.com/pszufe/HIF-standard), JSON, as XGI and others read and write it.
==========  ==========================================================================================================

Every file may be gzip-compressed (``.gz``); text is UTF-8, without comments. Where a format has no weights, a line is
one occurrence of its edge, and an edge weighs as often as it occurs. Nodes are numbered from 0 in the order of their
ids: numeric where all are integers, else by name. Ids other than 0, 1, 2, ... are kept as labels.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hgscale import rng
from hgscale.errors import ConfigError, DataError
from hgscale.files import write_bytes
from hgscale.hypergraph.structure import Hypergraph

FORMATS = ("pairs", "simplices", "edges", "facts", "statements", "hif")
TAKES = ("all", "first", "last", "random_a", "random_b")
RELATION_PREFIX = "relation:"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # 18 digits always fit int64
_NODE_LIMIT = 2**31  # Hypergraph keeps node ids as int32
_DETECT_LINES = 1000
_PAIRS_HEADERS = (("u", "v", "weight"), ("u", "v"))


@dataclass(frozen=True)
class _Table:
    """What a file says, nodes already numbered: R rows, one per line, nothing merged."""

    offsets: np.ndarray  # [R + 1] int64; row r holds nodes[offsets[r]:offsets[r + 1]]
    nodes: np.ndarray  # [nnz] int64 in [0, num_nodes)
    num_nodes: int
    labels: Sequence[str] | None  # None where nodes are just numbers
    place: Callable[[int], str]  # where row r stands, for errors
    weights: Sequence[Any] | None = None  # [R] as the file has them; None where each row is one occurrence
    times: np.ndarray | None = None  # [R] what orders the rows in time; None where nothing does


def read(
    path: str | Path,
    *,
    format: str = "auto",
    take: str = "all",
    split_frac: float = 0.5,
    keep_relations: bool = True,
) -> Hypergraph:
    """Read a world, or one part of its occurrences.

    Args:
        path: a file; for ``simplices`` a folder or a path prefix.
        format: one of ``FORMATS``, or ``auto`` to tell it from the content: a folder or prefix is ``simplices``, JSON
            is ``hif``, the header ``u,v[,weight]`` is ``pairs``, lines of integers are ``edges``. Lines of names fit
            several formats and are refused until one is named.
        take: ``all``, or a part of the occurrences, on the nodes and numbering of the whole. ``first`` is the share
            ``split_frac`` that comes first in time, ``last`` the rest; ``random_a`` is a random share, the same at each
            call, ``random_b`` the rest. Time is the times file in ``simplices``, elsewhere the order of the lines; ties
            keep the order of the file. ``hif`` and ``pairs`` with weights hold no occurrences and allow only ``all``.
        split_frac: share of the occurrences in ``first`` and ``random_a``, in (0, 1).
        keep_relations: in ``facts`` and ``statements`` an edge is the set of its entities, and of its relations as
            nodes of their own, numbered after the entities and labelled ``relation:...``; False leaves them out.

    Returns:
        The world. Its nodes are those that occur; in ``pairs`` 0 to the largest id; in ``hif`` also the listed ones.
        Labels come from the node-labels file in ``simplices``, from ``attrs.name`` in ``hif``, else from the ids.
        In ``hif`` an edge weighs ``weight``, else ``attrs.weight``, else 1; weights of incidences are ignored; each
        face of a simplicial complex (``asc``) is an edge.

    Raises:
        ConfigError: if an argument is unknown, out of range, or does not fit the format.
        DataError: naming file and line, if the content is wrong or its format cannot be told.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise ConfigError(f"--world.format {format} is not a format; use auto, {', '.join(FORMATS)}")
    if take not in TAKES:
        raise ConfigError(f"--world.take {take} is not a part; use {', '.join(TAKES)}")
    if not 0 < split_frac < 1:
        raise ConfigError(f"--world.split_frac {split_frac} is not a share; give a number between 0 and 1, as 0.5")
    format = _detect(path) if format == "auto" else format
    if format in ("facts", "statements"):
        table = _read_relational(path, format, keep_relations)
    else:
        table = _READERS[format](path)
    weights = _checked_weights(table)
    kept = _taken(table, take, split_frac, f"{path} ({format})")
    sizes = np.diff(table.offsets)
    nodes = table.nodes[np.repeat(kept, sizes)]
    where = str(path) if take == "all" else f"{path} ({take})"
    return Hypergraph.from_arrays(_offsets(sizes[kept]), nodes, weights[kept], table.num_nodes, table.labels, where)


def write(world: Hypergraph, path: str | Path, *, format: str | None = None) -> None:
    """Write a world so that ``read`` gives back the same digest; the file appears whole or not at all.

    Args:
        world: what to write. ``pairs`` takes edges of size 2 only, no labels, and no node behind the last edge's.
        path: file to write or replace; ``.gz`` at its end compresses.
        format: ``pairs`` or ``hif``; by default from the suffix, ``.csv`` or ``.json``.

    Raises:
        ConfigError: if the format cannot be told or cannot hold this world, or the folder does not exist.
        RunError: if the disk refuses.
    """
    path = Path(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix
    chosen = format or {".csv": "pairs", ".json": "hif"}.get(suffix, suffix)
    if chosen not in _WRITERS:
        raise ConfigError(f"{path}: {chosen!r} is not written; end the name in .csv (pairs) or .json (hif)")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist; make it")
    data = _WRITERS[chosen](world, path).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # no clock in the bytes: equal worlds make equal files
    write_bytes(path, data)


def _detect(path: Path) -> str:
    """The format of a path, by content; refuse where several fit."""
    if not path.is_file():
        return "simplices"
    text = _text(path)
    if text.lstrip().startswith(("{", "[")):
        return "hif"
    lines = _lines(path, text)[:_DETECT_LINES]
    if tuple(lines[0].replace(" ", "").split(",")) in _PAIRS_HEADERS:
        return "pairs"
    fields = [re.split(r"\s*,\s*|\s+", line.strip()) for line in lines]
    sizes, commas = {len(row) for row in fields}, {line.count(",") for line in lines}
    integers = all(map(_INTEGER.fullmatch, chain.from_iterable(fields)))
    fits = {
        "edges": True,
        "simplices (one file of a set: give its folder)": integers and sizes == {1},
        "facts": not integers and 1 not in sizes and ("\t" in text or commas == {0}),
        "statements": not integers and min(commas) >= 2 and not any(count % 2 for count in commas),
    }
    names = [name for name, fit in fits.items() if fit]
    if len(names) > 1:
        found = f"can be read as {' or as '.join(names)}"
        raise DataError(f"{path}: {found}; say which with --world.format, or give pairs the header u,v,weight")
    return "edges"


def _taken(table: _Table, take: str, split_frac: float, where: str) -> np.ndarray:
    """[R] bool: the rows in a part."""
    num_rows = len(table.offsets) - 1
    if take == "all":
        return np.ones(num_rows, dtype=bool)
    if table.weights is not None:
        raise ConfigError(f"{where}: --world.take {take} splits occurrences, and these rows have weights; use all")
    if take.startswith("random"):
        order = rng.stream(0, "random halves").permutation(num_rows)
    elif table.times is None:
        raise ConfigError(f"{where}: --world.take {take} needs a times file; add it, or use random_a, random_b")
    else:
        order = np.argsort(table.times, kind="stable")
    kept = np.zeros(num_rows, dtype=bool)
    kept[order[: round(split_frac * num_rows)]] = True
    return kept if take in ("first", "random_a") else ~kept


def _read_pairs(path: Path) -> _Table:
    """A CSV table of edges of size 2; both orders of a pair are the same edge."""
    lines = _lines(path)
    header = tuple(field.strip() for field in lines[0].split(","))
    if header not in _PAIRS_HEADERS:
        raise DataError(f"{path}:1: header is {lines[0][:80]!r}; u,v,weight or u,v is wanted")
    _, *rows = _fields(path, lines, ",", lambda size: size == len(header), ",".join(header))
    ids = [node for row in rows for node in row[:2]]
    nodes = _integers(ids, 0, _NODE_LIMIT - 1, lambda i: f"{path}:{i // 2 + 2}")
    offsets, num_nodes = np.arange(len(rows) + 1) * 2, int(nodes.max(initial=-1)) + 1
    weights = [row[2] for row in rows] if len(header) == 3 else None
    return _Table(offsets, nodes, num_nodes, None, lambda r: f"{path}:{r + 2}", weights, np.arange(len(rows)))


def _read_simplices(path: Path) -> _Table:
    """Benson's files; ids that occur are numbered in ascending order."""
    files = _simplex_files(path)
    sizes, ids = _column(files["nverts"], 1), _column(files["simplices"], 1)
    if sizes.sum() != len(ids):
        hint = "the two look swapped: exchange their names" if ids.sum() == len(sizes) else "fetch both again"
        lines = f"{files['simplices'].name} has {len(ids)} lines"
        raise DataError(f"{files['nverts']}: sizes sum to {sizes.sum()}, {lines}; they must agree: {hint}")
    times = _column(files["times"], -(10**18)) if "times" in files else None
    if times is not None and len(times) != len(sizes):
        raise DataError(f"{files['times']}: {len(times)} times for {len(sizes)} simplices; fetch both again")
    offsets = _offsets(sizes)
    known, nodes = np.unique(ids, return_inverse=True)
    labels = [str(node) for node in known]
    if "node-labels" in files:
        names = _node_labels(files["node-labels"])
        unnamed = [label for label in labels if label not in names]
        if unnamed:
            raise DataError(f"{files['node-labels']}: no label for node {unnamed[0]}; add its line or remove the file")
        labels = [names[label] for label in labels]

    def place(r: int) -> str:
        return f"{files['simplices']}:{offsets[r] + 1}: simplex {r + 1}"

    return _Table(offsets, nodes, len(known), labels, place, times=times)


def _simplex_files(path: Path) -> dict[str, Path]:
    """The files of one simplex set, by part; the optional ones where they exist."""
    prefix = path
    if path.is_dir():
        names = sorted({file.name.split("-nverts.txt")[0] for file in path.glob("*-nverts.txt*")})
        if len(names) != 1:
            found = f"{len(names)} simplex sets: {', '.join(names)}" if names else "no *-nverts.txt[.gz]"
            raise DataError(f"{path}: a folder with {found}; give one set as folder/prefix, or a file")
        prefix = path / names[0]
    files: dict[str, Path] = {}
    for part in ("nverts", "simplices", "times", "node-labels"):
        ends = [file for end in ("", ".gz") if (file := Path(f"{prefix}-{part}.txt{end}")).is_file()]
        if len(ends) > 1:
            raise DataError(f"{ends[0]}: stands beside {ends[1].name}; remove one of the two")
        if ends:
            files[part] = ends[0]
        elif part in ("nverts", "simplices"):
            state = "not a whole simplex set" if files or path.exists() else "no such file or folder"
            raise DataError(f"{path}: {state}: there is no {prefix.name}-{part}.txt[.gz]; mend the path or add it")
    return files


def _node_labels(path: Path) -> dict[str, str]:
    """Lines ``id label``; a label may hold spaces."""
    names: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        node, _, label = line.strip().replace("\t", " ", 1).partition(" ")
        if not _INTEGER.fullmatch(node) or not label.strip():
            raise DataError(f"{path}:{number}: {line[:80]!r}; a node id, a space and its label are wanted")
        if str(int(node)) in names:
            raise DataError(f"{path}:{number}: a second label for node {int(node)}; keep one")
        names[str(int(node))] = label.strip()
    return names


def _read_edges(path: Path) -> _Table:
    """One edge per line, of numbers or of names."""
    rows = _fields(path, _lines(path), ",\t ")
    tokens = list(chain.from_iterable(rows))
    offsets = _offsets([len(row) for row in rows])
    strangers = [i for i, token in enumerate(tokens) if not _INTEGER.fullmatch(token)]
    if 0 < len(strangers) < len(tokens) / 2:
        # A header, a comment or a slip among numbers would otherwise become a node and change the order of all.
        line = np.searchsorted(offsets, strangers[0], side="right")
        raise DataError(f"{path}:{line}: node {tokens[strangers[0]]!r} where most are integers; mend or remove it")
    nodes, names = _numbered(tokens)
    times = np.arange(len(rows))
    return _Table(offsets, nodes, len(names), _labels(names), lambda r: f"{path}:{r + 1}", times=times)


def _read_relational(path: Path, format: str, keep_relations: bool) -> _Table:
    """Facts or statements; an entity or a relation repeated within a line counts once."""
    if format == "facts":
        rows = _fields(path, _lines(path), "\t ", lambda size: size >= 2, "a relation and its entities")
        relation_rows, entity_rows = [row[:1] for row in rows], [row[1:] for row in rows]
    else:
        rows = _fields(path, _lines(path), ",", lambda size: size >= 3 and size % 2 == 1, "h,r,t[,qr,qe]*")
        relation_rows, entity_rows = [row[1::2] for row in rows], [row[::2] for row in rows]
    owner, nodes, entities = _incidences(entity_rows)
    labels, num_nodes = _labels(entities), len(entities)
    if keep_relations:
        relation_owner, relation_nodes, relations = _incidences(relation_rows)
        labels = entities + [RELATION_PREFIX + relation for relation in relations]
        clashes = set(entities).intersection(labels[num_nodes:])
        if clashes:
            raise DataError(f"{path}: {min(clashes)!r} is an entity and a relation's label; use keep_relations=false")
        owner, nodes = np.concatenate([owner, relation_owner]), np.concatenate([nodes, num_nodes + relation_nodes])
        num_nodes = len(labels)
    owner, nodes = np.divmod(np.unique(owner * num_nodes + nodes), num_nodes)
    offsets = _offsets(np.bincount(owner))
    return _Table(offsets, nodes, num_nodes, labels, lambda r: f"{path}:{r + 1}", times=np.arange(len(rows)))


def _incidences(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Row and node number of every field [nnz], and the names of the nodes."""
    nodes, names = _numbered(list(chain.from_iterable(rows)))
    return np.repeat(np.arange(len(rows)), [len(row) for row in rows]), nodes, names


def _read_hif(path: Path) -> _Table:
    """HIF JSON; equal edges are merged later, their weights adding."""
    try:
        data = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}; a HIF file is wanted") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(data, dict) or "incidences" not in data:
        raise DataError(f"{path}: JSON without a field incidences; a HIF file is wanted")
    kind = data.get("network-type", "undirected")
    incidences = _records(path, data, "incidences", ("edge", "node"))
    if kind not in ("undirected", "asc") or any(record.get("direction") is not None for record in incidences):
        raise DataError(f"{path}: network-type {kind!r} or incidences with a direction; only undirected ones are read")
    node_records, edge_records = _records(path, data, "nodes", ("node",)), _records(path, data, "edges", ("edge",))

    members: dict[int | str, list[int | str]] = {}
    for record in incidences:
        members.setdefault(record["edge"], []).append(record["node"])
    weight_of: dict[int | str, Any] = {}
    for record in edge_records:
        edge = record["edge"]
        if edge in weight_of or edge not in members:
            raise DataError(f"{path}: edge {edge!r} is {'listed twice' if edge in weight_of else 'empty'}; remove it")
        weight_of[edge] = record.get("weight", record.get("attrs", {}).get("weight", 1))
    ids = list(chain.from_iterable(members.values()))
    distinct = dict.fromkeys([*ids, *(record["node"] for record in node_records)])
    numbers, names = _numbered([str(node) for node in distinct])
    if len(names) < len(distinct):
        raise DataError(f"{path}: a node id stands both as a number and as text; write it one way")
    index = dict(zip(distinct, numbers.tolist(), strict=True))
    given = {index[r["node"]]: str(r["attrs"]["name"]) for r in node_records if "name" in r.get("attrs", {})}
    edges = list(members)
    return _Table(
        offsets=_offsets([len(row) for row in members.values()]),
        nodes=np.array([index[node] for node in ids], dtype=np.int64),
        num_nodes=len(names),
        labels=[given.get(i, name) for i, name in enumerate(names)] if given else _labels(names),
        place=lambda r: f"{path}: edge {edges[r]!r}",
        weights=[weight_of.get(edge, 1) for edge in edges],
    )


def _records(path: Path, data: dict[str, Any], field: str, ids: tuple[str, ...]) -> list[dict[str, Any]]:
    """One list of a HIF file, its records checked for their ids."""
    records = data.get(field, [])
    if not isinstance(records, list):
        raise DataError(f"{path}: {field} is a {type(records).__name__}; a list is wanted")
    for i, record in enumerate(records):
        if not isinstance(record, dict) or any(type(record.get(name)) not in (int, str) for name in ids):
            raise DataError(f"{path}: {field}[{i}] is {str(record)[:80]}; {ids} as integers or text are wanted")
        if not isinstance(record.get("attrs", {}), dict):
            raise DataError(f"{path}: {field}[{i}].attrs is {str(record['attrs'])[:80]}; an object is wanted")
    return records


def _text(path: Path) -> str:
    """A whole file as text, unpacked."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or corrupt gzip ({error}); fetch it again") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: byte {error.start} is not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; give a readable file") from None
    if "\0" in text:
        raise DataError(f"{path}: holds zero bytes, so it is not text; formats are {', '.join(FORMATS)}")
    if not text.strip():
        raise DataError(f"{path}: the file is empty; a world needs at least one edge")
    return text.replace("\r\n", "\n")


def _lines(path: Path, text: str | None = None) -> list[str]:
    """The lines of a file (of its text, where that was read before), none of them empty."""
    lines = (_text(path) if text is None else text).rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            raise DataError(f"{path}:{number}: an empty line; remove it: every line is an edge")
    return lines


def _fields(
    path: Path, lines: list[str], separators: str, fits: Callable[[int], bool] = bool, wanted: str = "nodes"
) -> list[list[str]]:
    """The fields of every line, by the first separator that occurs, else the last; comma is CSV, space any whitespace.

    Refuses empty fields, and lines whose number of fields does not fit what is wanted.
    """
    separator = next((mark for mark in separators if any(mark in line for line in lines)), separators[-1])
    if separator == ",":
        reader = csv.reader(lines, skipinitialspace=True, strict=True)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}; mend the quotes") from None
    else:
        rows = [line.split(None if separator == " " else separator) for line in lines]
    rows = [[field.strip() for field in row] for row in rows]
    for number, row in enumerate(rows, 1):
        if "" in row:
            raise DataError(f"{path}:{number}: field {row.index('') + 1} is empty; fill it or remove its separator")
        if not fits(len(row)):
            raise DataError(f"{path}:{number}: {len(row)} fields; {wanted} are wanted")
    return rows


def _column(path: Path, least: int) -> np.ndarray:
    """[n] int64: a file of one integer per line."""
    return _integers([line.strip() for line in _lines(path)], least, 10**18, lambda i: f"{path}:{i + 1}")


def _integers(tokens: list[str], least: int, most: int, place: Callable[[int], str]) -> np.ndarray:
    """[n] int64 in [least, most]; ``place`` says where token i stands."""
    fits = np.fromiter((_INTEGER.fullmatch(token) is not None for token in tokens), dtype=bool, count=len(tokens))
    if fits.all():
        values = np.fromiter(map(int, tokens), dtype=np.int64, count=len(tokens))
        fits = (least <= values) & (values <= most)
        if fits.all():
            return values
    i = int(np.argmin(fits))
    raise DataError(f"{place(i)}: {tokens[i][:80]!r}; an integer from {least} to {most} is wanted")


def _number(value: Any) -> float:
    """A number, or NaN for what is none."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _numbered(tokens: list[str]) -> tuple[np.ndarray, list[str]]:
    """Number the distinct tokens, as numbers where all are (different) integers, else by name.

    Returns:
        [n] int64, the number of each token; the tokens by number.
    """
    distinct = set(tokens)
    numeric = all(map(_INTEGER.fullmatch, distinct)) and len(set(map(int, distinct))) == len(distinct)
    names = sorted(distinct, key=int if numeric else None)
    index = {name: number for number, name in enumerate(names)}
    return np.fromiter(map(index.__getitem__, tokens), dtype=np.int64, count=len(tokens)), names


def _labels(names: list[str]) -> list[str] | None:
    """The names, or None where they are just 0, 1, 2, ..."""
    return None if names == [str(number) for number in range(len(names))] else names


def _checked_weights(table: _Table) -> np.ndarray:
    """[R] float64, finite and not negative; refuse other weights, and a row that holds a node twice."""
    owner = np.repeat(np.arange(len(table.offsets) - 1), np.diff(table.offsets))
    keys = owner * table.num_nodes + table.nodes
    _, first = np.unique(keys, return_index=True)
    if len(first) < len(keys):
        at = int(np.setdiff1d(np.arange(len(keys)), first)[0])
        node = int(table.nodes[at]) if table.labels is None else table.labels[table.nodes[at]]
        raise DataError(f"{table.place(int(owner[at]))}: node {node!r} stands twice; an edge is a set: remove one")
    if table.weights is None:
        return np.ones(len(table.offsets) - 1)
    weights = np.array([_number(value) for value in table.weights])
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        r = int(np.argmax(bad))
        raise DataError(f"{table.place(r)}: weight {table.weights[r]!r:.80}; finite and not negative is wanted")
    return weights


def _offsets(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """[R + 1] int64 from [R] sizes."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))])


def _pairs_text(world: Hypergraph, path: Path) -> str:
    if world.distinct_sizes != (2,):
        raise ConfigError(f"{path}: pairs hold edges of size 2 only, and here are others; write .json (hif)")
    if world.labels is not None or world.num_nodes != int(world.nodes.max()) + 1:
        raise ConfigError(f"{path}: pairs keep neither labels nor nodes behind the last edge's; write .json (hif)")
    rows = zip(world.edges_of_size(2).tolist(), world.weights.tolist(), strict=True)
    return "u,v,weight\n" + "".join(f"{u},{v},{weight!r}\n" for (u, v), weight in rows)


def _hif_text(world: Hypergraph, path: Path) -> str:
    """HIF with every node listed; weights stand twice, as the standard has them and in attrs, which XGI reads."""
    owner = np.repeat(np.arange(world.num_edges), world.sizes).tolist()
    named = [{}] * world.num_nodes if world.labels is None else [{"attrs": {"name": name}} for name in world.labels]
    data = {
        "network-type": "undirected",
        "metadata": {},
        "incidences": [{"edge": edge, "node": node} for edge, node in zip(owner, world.nodes.tolist(), strict=True)],
        "nodes": [{"node": node, **attrs} for node, attrs in enumerate(named)],
        "edges": [{"edge": e, "weight": w, "attrs": {"weight": w}} for e, w in enumerate(world.weights.tolist())],
    }
    return json.dumps(data, ensure_ascii=False) + "\n"


_READERS: dict[str, Callable[[Path], _Table]] = {
    "pairs": _read_pairs,
    "simplices": _read_simplices,
    "edges": _read_edges,
    "hif": _read_hif,
}
_WRITERS: dict[str, Callable[[Hypergraph, Path], str]] = {"pairs": _pairs_text, "hif": _hif_text}
