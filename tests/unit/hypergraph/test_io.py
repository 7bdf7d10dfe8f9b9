"""Files: real data come out with the known counts, files of others load, ours come back, and bad ones say where."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xgi
from hypothesis import given, settings
from hypothesis import strategies as st

from hgscale.errors import ConfigError, DataError, RunError
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph

BENSON = {
    "email-Enron": (10_883, 1_512, 143),
    "contact-high-school": (172_035, 7_818, 327),
    "NDC-classes": (49_724, 1_088, 1_161),
}


def save(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def simplex_set(folder: Path, name: str = "s", **parts: str) -> Path:
    """Write ``name-part.txt`` files; an underscore in a keyword stands for a hyphen. Items are separated by spaces."""
    for part, items in parts.items():
        save(folder / f"{name}-{part.replace('_', '-')}.txt", "\n".join(items.split(" ")) + "\n")
    return folder


def weights_by_names(world: Hypergraph) -> dict[frozenset[str], float]:
    names = world.labels or [str(node) for node in range(world.num_nodes)]
    return {frozenset(names[v] for v in world.edge(e)): float(world.weights[e]) for e in range(world.num_edges)}


def assert_weighs_as_counted(world: Hypergraph, counts: Counter[frozenset[str]]) -> None:
    """Equal edges, and weights equal to count / total: one division each, so within a few rounding errors."""
    weights, total = weights_by_names(world), sum(counts.values())
    assert weights.keys() == counts.keys()
    assert max(abs(weights[edge] * total / count - 1) for edge, count in counts.items()) < 1e-14


def total_variation(a: Hypergraph, b: Hypergraph) -> float:
    p, q = weights_by_names(a), weights_by_names(b)
    return sum(abs(p.get(edge, 0) - q.get(edge, 0)) for edge in p.keys() | q.keys()) / 2


# ---- real data


@pytest.mark.parametrize("name", BENSON)
def test_benson_sets_have_the_published_counts(shared_data: Path, name: str) -> None:
    num_simplices, num_edges, num_nodes = BENSON[name]
    world = io.read(shared_data / "benson" / name)
    assert (world.num_edges, world.num_nodes) == (num_edges, num_nodes)
    assert len(set(world.nodes.tolist())) == num_nodes
    # A weight is count / simplices, one division: times simplices it is an integer within a few rounding errors.
    counts = world.weights * num_simplices
    assert np.abs(counts - counts.round()).max() < 1e-9 * counts.max()
    assert counts.round().sum() == num_simplices


def test_simplices_equal_a_count_of_sets_in_plain_python(shared_data: Path) -> None:
    prefix = shared_data / "benson" / "email-Enron" / "email-Enron"
    sizes, ids = (gzip.decompress(Path(f"{prefix}-{p}.txt.gz").read_bytes()).split() for p in ("nverts", "simplices"))
    stream = iter(ids)
    counts = Counter(frozenset(next(stream).decode() for _ in range(int(size))) for size in sizes)
    assert_weighs_as_counted(io.read(prefix), counts)


def test_node_labels_file_names_the_nodes(shared_data: Path) -> None:
    world = io.read(shared_data / "benson" / "NDC-classes")
    assert world.labels is not None
    assert world.labels[0] == "radioactive diagnostic agent [epc]"
    assert world.labels[-1] == "hematopoietic stem cells [chemical/ingredient]"


@pytest.mark.parametrize(
    ("name", "by_time"), [("email-Enron", 0.694), ("contact-high-school", 0.520), ("NDC-classes", 0.347)]
)
def test_halves_by_time_are_as_far_apart_as_the_known_data(shared_data: Path, name: str, by_time: float) -> None:
    """The distances were counted for the project's page of facts, by other code."""
    folder = shared_data / "benson" / name
    halves = [io.read(folder, take=take) for take in ("first", "last", "random_a", "random_b")]
    assert total_variation(*halves[:2]) == pytest.approx(by_time, abs=0.001)
    assert total_variation(*halves[2:]) < by_time / 2
    assert len({half.labels for half in halves}) == 1
    assert {half.num_nodes for half in halves} == {BENSON[name][2]}


@pytest.mark.parametrize("takes", [("first", "last"), ("random_a", "random_b")])
@pytest.mark.parametrize("split_frac", [0.5, 0.2])
def test_two_parts_together_are_everything(shared_data: Path, takes: tuple[str, str], split_frac: float) -> None:
    path = shared_data / "benson" / "email-Enron"
    num_first = round(split_frac * 10_883)
    total: Counter[frozenset[str]] = Counter()
    for take, num_rows in zip(takes, (num_first, 10_883 - num_first), strict=True):
        part = weights_by_names(io.read(path, take=take, split_frac=split_frac))
        total.update({edge: round(weight * num_rows) for edge, weight in part.items()})
    assert_weighs_as_counted(io.read(path), total)


def test_chodrow_contacts_are_the_edges_of_the_benson_set(shared_data: Path) -> None:
    classes = shared_data / "chodrow" / "contact-high-school-classes"
    world = io.read(classes / "hyperedges-contact-high-school-classes.txt")
    assert (world.num_edges, world.num_nodes, world.max_size) == (7_818, 327, 5)
    assert world.labels == tuple(str(node) for node in range(1, 328))
    assert np.ptp(world.weights) == 0


@pytest.mark.parametrize(("name", "keep_relations"), [("JF17K-3", True), ("JF17K-4", True), ("JF17K-4", False)])
def test_facts_equal_a_count_of_sets_in_plain_python(shared_data: Path, name: str, keep_relations: bool) -> None:
    path = shared_data / "nary" / name / "train.txt"
    facts = [line.split() for line in path.read_text().splitlines()]
    counts = Counter(frozenset(["relation:" + r] * keep_relations + entities) for r, *entities in facts)
    world = io.read(path, format="facts", keep_relations=keep_relations)
    assert sum(counts.values()) == {"JF17K-3": 27_635, "JF17K-4": 7_607}[name]
    assert world.num_nodes == len(frozenset().union(*counts))
    assert_weighs_as_counted(world, counts)


@pytest.mark.parametrize(("name", "keep_relations"), [("test", True), ("valid", False)])
def test_statements_equal_a_count_of_sets_in_plain_python(shared_data: Path, name: str, keep_relations: bool) -> None:
    path = shared_data / "wd50k" / f"{name}.txt"
    counts: Counter[frozenset[str]] = Counter()
    for line in path.read_text().splitlines():
        items = line.split(",")  # Q ids are entities and P ids are properties, wherever they stand
        properties = ["relation:" + p for p in items if p.startswith("P")] * keep_relations
        counts[frozenset([q for q in items if q.startswith("Q")] + properties)] += 1
    world = io.read(path, format="statements", keep_relations=keep_relations)
    assert world.num_nodes == len(frozenset().union(*counts))
    assert_weighs_as_counted(world, counts)


def test_paper_worlds_come_back_from_pairs_and_hif_with_the_same_digest(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "paper-worlds").glob("*.csv"))
    assert len(files) == 25
    for file in files:
        world = io.read(file)
        for name in ("world.csv", "world.json.gz"):
            io.write(world, tmp_path / name)
            assert io.read(tmp_path / name).digest == world.digest


# ---- small files, by hand


def test_example_of_the_benson_description(tmp_path: Path) -> None:
    folder = simplex_set(tmp_path, nverts="3 2 4", simplices="1 2 3 2 4 1 3 4 5", times="10 15 21")
    world = io.read(folder)
    assert [world.edge(e) for e in range(3)] == [(1, 3), (0, 1, 2), (0, 2, 3, 4)]
    assert world.labels == ("1", "2", "3", "4", "5")


def test_first_part_is_by_time_and_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """100 simplices {1}, {2}, ..., all at time 7 but the last, at 5; enough for an unstable sort to show."""
    ids = [str(node) for node in range(1, 101)]
    simplex_set(tmp_path, nverts=" ".join(["1"] * 100), simplices=" ".join(ids), times=" ".join(["7"] * 99 + ["5"]))
    first, last = io.read(tmp_path, take="first"), io.read(tmp_path, take="last")
    assert set(weights_by_names(first)) == {frozenset([node]) for node in [*ids[:49], "100"]}
    assert set(weights_by_names(last)) == {frozenset([node]) for node in ids[49:99]}
    assert first.num_nodes == last.num_nodes == 100


@pytest.mark.parametrize(
    ("name", "format", "text"),
    [
        ("e.txt", "edges", "0 1\n1 2\n2 3\n3 4\n"),
        ("p.csv", "pairs", "u,v\n0,1\n1,2\n2,3\n3,4\n"),
        ("f.txt", "facts", "r 0 1\nr 1 2\nr 2 3\nr 3 4\n"),
        ("s.csv", "statements", "0,r,1\n1,r,2\n2,r,3\n3,r,4\n"),
    ],
)
def test_time_is_the_order_of_lines_in_lists(tmp_path: Path, name: str, format: str, text: str) -> None:
    path = save(tmp_path / name, text)
    first = io.read(path, format=format, take="first", split_frac=0.25, keep_relations=False)
    assert (first.num_edges, first.edge(0), first.num_nodes) == (1, (0, 1), 5)
    assert io.read(path, format=format, take="last", split_frac=0.25, keep_relations=False).num_edges == 3


def test_node_labels_may_hold_spaces_and_name_unused_nodes(tmp_path: Path) -> None:
    simplex_set(tmp_path, nverts="2 1", simplices="5 9 5")
    save(tmp_path / "s-node-labels.txt", "9 nine or so\n5\tfive\n7 seven\n")
    assert weights_by_names(io.read(tmp_path)) == {frozenset(["five", "nine or so"]): 0.5, frozenset(["five"]): 0.5}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("10 2\n2 1\n", ("1", "2", "10")),  # integers: numeric order
        ("0 1\n1 2\n", None),  # 0, 1, 2: just numbers
        ("b a\na 10\n9 a\n", ("10", "9", "a", "b")),  # a name among them: all are names
        ("007 7\n7 8\n", ("007", "7", "8")),  # different texts stay different nodes
    ],
)
def test_nodes_are_numbered_by_number_or_else_by_name(
    tmp_path: Path, text: str, labels: tuple[str, ...] | None
) -> None:
    assert io.read(save(tmp_path / "e.txt", text), format="edges").labels == labels


@pytest.mark.parametrize(
    "text", ["ann,bob c\nbob c\n", "ann\tbob c\nbob c\n", '"ann","bob c"\r\n"bob c"\r\n', "\ufeffann, bob c\nbob c"]
)
def test_edges_of_names_may_hold_spaces_behind_commas_or_tabs(tmp_path: Path, text: str) -> None:
    world = io.read(save(tmp_path / "e.txt", text), format="edges")
    assert weights_by_names(world) == {frozenset(["ann", "bob c"]): 0.5, frozenset(["bob c"]): 0.5}


def test_pairs_of_both_orders_are_one_edge_and_isolated_ids_are_nodes(tmp_path: Path) -> None:
    world = io.read(save(tmp_path / "p.csv", "u,v,weight\n0,4,1\n4,0,2\n1,4,1\n"))
    assert weights_by_names(world) == {frozenset("04"): 0.75, frozenset("14"): 0.25}
    assert (world.num_nodes, world.labels) == (5, None)


def test_a_relation_is_a_node_of_its_own_even_when_an_entity_has_its_name(tmp_path: Path) -> None:
    path = save(tmp_path / "f.txt", "likes\tann\tlikes\nlikes\tann\tann\n")
    world = io.read(path, format="facts")
    assert world.labels == ("ann", "likes", "relation:likes")
    assert [world.edge(e) for e in range(2)] == [(0, 2), (0, 1, 2)]
    assert io.read(path, format="facts", keep_relations=False).labels == ("ann", "likes")
    clash = save(tmp_path / "g.txt", "likes ann relation:likes\n")
    with pytest.raises(
        DataError, match=r"'relation:likes' is an entity and a relation's label; use keep_relations=false"
    ):
        io.read(clash, format="facts")


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("u,v,weight\n0,1,2\n", "pairs"),
        ("u, v\n0,1\n", "pairs"),
        ("1,2,3\n2,3\n", "edges"),
        ("1 2 3\n4 5 6\n", "edges"),
        ("ann,bob\nbob,cat,dan,eve\n", "edges"),
        ("ann bob\ncat\n", "edges"),
        (' {"incidences": [{"edge": 0, "node": 0}]}', "hif"),
    ],
)
def test_auto_reads_as_the_format_that_the_content_shows(tmp_path: Path, text: str, format: str) -> None:
    path = save(tmp_path / "any.name", text)
    auto, named = io.read(path), io.read(path, format=format)
    assert (auto.digest, auto.labels) == (named.digest, named.labels)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("knows ann bob\nknows bob cat\n", "edges or as facts"),
        ("knows\tann\tbob\n", "edges or as facts"),
        ("ann,knows,bob\nann,knows,cat,since,eve\n", "edges or as statements"),
        ("a,b,w\n0,1,0.5\n", "edges or as statements"),
        ("2\n3\n2\n", "edges or as simplices"),
    ],
)
def test_auto_refuses_to_guess(tmp_path: Path, text: str, candidates: str) -> None:
    path = save(tmp_path / "x.txt", text)
    with pytest.raises(DataError, match=rf"x\.txt: can be read as {candidates}.*say which with --world\.format"):
        io.read(path)


# ---- HIF and XGI


def xgi_sizes(net: xgi.Hypergraph) -> Counter[int]:
    return Counter(len(members) for members in net.edges.members())


@pytest.mark.parametrize("end", [".json", ".json.gz"])
def test_a_file_of_xgi_loads_with_its_counts_and_weights(tmp_path: Path, end: str) -> None:
    net = xgi.fast_random_hypergraph(30, [0.05, 0.005], seed=1)
    net.add_node(99)
    for e in net.edges:
        net.set_edge_attributes({e: {"weight": 1.0 + e % 3}})
    xgi.write_hif(net, str(tmp_path / f"net{end}"))
    world = io.read(tmp_path / f"net{end}")
    assert (world.num_nodes, world.num_edges) == (net.num_nodes, net.num_edges)
    assert Counter(world.sizes.tolist()) == xgi_sizes(net)
    assert_weighs_as_counted(world, Counter({frozenset(map(str, net.edges.members(e))): 1 + e % 3 for e in net.edges}))


def test_multiedges_of_xgi_merge_and_edges_without_weight_count_one(tmp_path: Path) -> None:
    net = xgi.Hypergraph([["b", "a"], ["a", "b"], ["b", "c", "a"]])
    net.set_edge_attributes({2: {"weight": 6.0}})
    xgi.write_hif(net, str(tmp_path / "net.json"))
    world = io.read(tmp_path / "net.json")
    assert weights_by_names(world) == {frozenset("ab"): 0.25, frozenset("abc"): 0.75}
    assert world.labels == ("a", "b", "c")


def test_every_face_of_a_simplicial_complex_of_xgi_is_an_edge(tmp_path: Path) -> None:
    net = xgi.SimplicialComplex([[0, 1, 2]])
    xgi.write_hif(net, str(tmp_path / "net.json"))
    assert io.read(tmp_path / "net.json").num_edges == net.num_edges == 4


def test_directed_files_of_xgi_are_refused(tmp_path: Path) -> None:
    xgi.write_hif(xgi.DiHypergraph([([0, 1], [2])]), str(tmp_path / "net.json"))
    with pytest.raises(DataError, match=r"net\.json: network-type 'directed'"):
        io.read(tmp_path / "net.json")


@st.composite
def worlds(draw: st.DrawFn) -> Hypergraph:
    """Up to 6 nodes in up to 8 edges, weights over 12 decades, isolated nodes and repeated labels included."""
    num_nodes = draw(st.integers(1, 6))
    edges = draw(st.lists(st.sets(st.integers(0, num_nodes - 1), min_size=1), min_size=1, max_size=8))
    weights = draw(st.lists(st.floats(1e-6, 1e6), min_size=len(edges), max_size=len(edges)))
    labels = draw(st.none() | st.lists(st.text(max_size=3), min_size=num_nodes, max_size=num_nodes))
    return Hypergraph.from_edges([sorted(edge) for edge in edges], weights, num_nodes, labels)


@settings(max_examples=60, deadline=None)
@given(world=worlds())
def test_hif_comes_back_the_same_from_us_and_by_way_of_xgi(
    tmp_path_factory: pytest.TempPathFactory, world: Hypergraph
) -> None:
    folder = tmp_path_factory.mktemp("hif")
    io.write(world, folder / "ours.json")
    back = io.read(folder / "ours.json")
    assert (back.digest, back.labels) == (world.digest, world.labels)
    net = xgi.read_hif(str(folder / "ours.json"))
    assert (net.num_nodes, net.num_edges) == (world.num_nodes, world.num_edges)
    assert xgi_sizes(net) == Counter(world.sizes.tolist())
    xgi.write_hif(net, str(folder / "theirs.json"))
    back = io.read(folder / "theirs.json")
    assert (back.digest, back.labels) == (world.digest, world.labels)


def test_a_directed_incidence_is_refused_where_the_network_type_is_missing(tmp_path: Path) -> None:
    path = save(tmp_path / "x.json", json.dumps({"incidences": [{"edge": 0, "node": 0, "direction": "head"}]}))
    with pytest.raises(DataError, match="incidences with a direction"):
        io.read(path)


def test_weight_of_the_standard_goes_before_the_one_in_attrs(tmp_path: Path) -> None:
    incidences = [{"edge": "a", "node": 0}, {"edge": "b", "node": 1}]
    edges = [{"edge": "a", "weight": 3, "attrs": {"weight": 100}}]
    world = io.read(save(tmp_path / "x.json", json.dumps({"incidences": incidences, "edges": edges})))
    assert world.weights.tolist() == [0.75, 0.25]


# ---- writing


def test_equal_worlds_make_equal_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    world = Hypergraph.from_edges([[0, 1], [1, 2]], [0.1, 0.2])
    for name in ("a.csv.gz", "b.csv.gz"):
        io.write(world, tmp_path / name)
    data = (tmp_path / "a.csv.gz").read_bytes()
    assert data == (tmp_path / "b.csv.gz").read_bytes()
    assert data[4:8] == bytes(4)  # where gzip keeps the time of packing
    assert io.read(tmp_path / "a.csv.gz").digest == world.digest
    assert sorted(os.listdir(tmp_path)) == ["a.csv.gz", "b.csv.gz"]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "w.csv", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"w\.csv: cannot be written \(No space left"):
        io.write(Hypergraph.from_edges([[0, 1]]), path)
    assert os.listdir(tmp_path) == ["w.csv"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("world", "name", "message"),
    [
        (Hypergraph.from_edges([[0, 1, 2]]), "w.csv", "edges of size 2 only"),
        (Hypergraph.from_edges([[0, 1]], num_nodes=3), "w.csv", "nodes behind the last"),
        (Hypergraph.from_edges([[0, 1]], labels=["a", "b"]), "w.csv", "labels"),
        (Hypergraph.from_edges([[0, 1]]), "w.txt", r"'\.txt' is not written"),
        (Hypergraph.from_edges([[0, 1]]), "no/w.csv", "does not exist; make it"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_and_not_written(
    tmp_path: Path, world: Hypergraph, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        io.write(world, tmp_path / name)
    assert os.listdir(tmp_path) == []


# ---- bad input: one line that says where

HIF_OF_ONE_EDGE = '{"incidences": [{"edge": 0, "node": 1}], "edges": %s}'


def refusal(path: Path, format: str = "auto", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        io.read(path, format=format, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("pairs", "a,b,weight\n0,1,1\n", "x:1: header is 'a,b,weight'; u,v,weight or u,v is wanted"),
        ("pairs", "0,1,1\n", "x:1: header is '0,1,1'"),
        ("pairs", "u,v,weight\n0,1,1\n0,2\n", "x:3: 2 fields; u,v,weight are wanted"),
        ("pairs", "u,v,weight\n0,1,-2\n", "x:2: weight '-2'; finite and not negative is wanted"),
        ("pairs", "u,v,weight\n0,1,1\n0,2,nan\n", "x:3: weight 'nan'"),
        ("pairs", "u,v,weight\n0,1,inf\n", "x:2: weight 'inf'"),
        ("pairs", "u,v,weight\n0,1,heavy\n", "x:2: weight 'heavy'"),
        ("pairs", "u,v,weight\n0,1,\n", "x:2: field 3 is empty"),
        ("pairs", "u,v,weight\n0,1,0\n", "x: the weights sum to 0.0"),
        ("pairs", "u,v,weight\n", "x: no edges"),
        ("pairs", "u,v,weight\n0,1,1\n1,1,1\n", "x:3: node 1 stands twice"),
        ("pairs", "u,v,weight\n0,1.5,1\n", "x:2: '1.5'; an integer from 0 to 2147483647 is wanted"),
        ("pairs", "u,v\n0,1\n-1,0\n", "x:3: '-1'; an integer"),
        ("pairs", "u,v\n0,2147483648\n", "x:2: '2147483648'; an integer"),
        ("edges", "0 1\n\n1 2\n", "x:2: an empty line"),
        ("edges", "0 1\n2 1 2\n", "x:2: node 2 stands twice"),
        ("edges", "b a\nb a b\n", "x:2: node 'b' stands twice"),
        ("edges", "0,1\n1,,2\n", "x:2: field 2 is empty"),
        ("edges", "0 1 2\n0 2.5\n", "x:2: node '2.5' where most are integers"),
        ("edges", "# nodes\n0 1\n1 2\n", "x:1: node '#' where most are integers"),
        ("edges", '"a,b\nc,d\n', "x:2: not CSV"),
        ("facts", "r a b\nr\n", "x:2: 1 fields; a relation and its entities are wanted"),
        ("facts", "r\ta\nr\t\tb\n", "x:2: field 2 is empty"),
        ("statements", "a,r,b\na,r,b,q\n", "x:2: 4 fields; h,r,t[,qr,qe]* are wanted"),
        ("statements", "a r b\n", "x:1: 1 fields"),
        ("auto", "", "x: the file is empty"),
        ("auto", " \n", "x: the file is empty"),
        ("auto", b"0 1\n1 \xff\n", "x:2: byte 6 is not UTF-8"),
        ("auto", b"PAR1\0\0", "x: holds zero bytes"),
        ("simplices", "1\n", "x: not a whole simplex set"),
        ("hif", '{"incidences": [\n', "x:2: not JSON"),
        ("hif", "[" * 200_000, "x: not JSON that can be read"),
        ("hif", '{"edges": []}', "x: JSON without a field incidences"),
        ("hif", '{"incidences": {}}', "x: incidences is a dict; a list is wanted"),
        ("hif", '{"incidences": []}', "x: no edges"),
        ("hif", '{"incidences": [{"edge": 1}]}', "x: incidences[0] is {'edge': 1}"),
        ("hif", '{"incidences": [{"edge": 1, "node": true}]}', "x: incidences[0]"),
        ("hif", '{"network-type": "x", "incidences": []}', "x: network-type 'x'"),
        ("hif", '{"incidences": [{"edge": "e", "node": 1}, {"edge": "e", "node": 1}]}', "x: edge 'e': node '1' stands"),
        ("hif", '{"incidences": [{"edge": 0, "node": 1}, {"edge": 0, "node": "1"}]}', "x: a node id stands both as"),
        ("hif", HIF_OF_ONE_EDGE % '[{"edge": 7}]', "x: edge 7 is empty"),
        ("hif", HIF_OF_ONE_EDGE % '[{"edge": 0}, {"edge": 0}]', "x: edge 0 is listed twice"),
        ("hif", HIF_OF_ONE_EDGE % '[{"edge": 0, "weight": null}]', "x: edge 0: weight None"),
        ("hif", HIF_OF_ONE_EDGE % '[{"edge": 0, "weight": NaN}]', "x: edge 0: weight nan"),
        ("hif", HIF_OF_ONE_EDGE % '[{"edge": 0, "attrs": [1]}]', "x: edges[0].attrs is [1]"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, format: str, text: str | bytes, message: str) -> None:
    path = save(tmp_path / "x", text)
    assert refusal(path, format).startswith(str(tmp_path / message))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"nverts": "2 3", "simplices": "1 2 3 4"}, "s-nverts.txt: sizes sum to 5, s-simplices.txt has 4 lines"),
        ({"nverts": "1 2 1", "simplices": "2 1"}, "look swapped"),
        ({"nverts": "2 2", "simplices": "1 2 3 3"}, "s-simplices.txt:3: simplex 2: node '3' stands twice"),
        ({"nverts": "2 x", "simplices": "1 2"}, "s-nverts.txt:2: 'x'; an integer"),
        ({"nverts": "2 0", "simplices": "1 2"}, "s-nverts.txt:2: '0'; an integer from 1"),
        ({"nverts": "2", "simplices": "1 0"}, "s-simplices.txt:2: '0'; an integer from 1"),
        ({"nverts": "2", "simplices": "1 1e3"}, "s-simplices.txt:2: '1e3'"),
        ({"nverts": "2 1", "simplices": "1 2 3", "times": "5"}, "s-times.txt: 1 times for 2 simplices"),
        ({"nverts": "2"}, "no s-simplices.txt[.gz]"),
        ({"simplices": "2"}, "a folder with no *-nverts.txt[.gz]"),
        ({"nverts": "2", "simplices": "1 2", "node_labels": "1"}, "s-node-labels.txt:1: '1'; a node id, a space"),
    ],
)
def test_a_bad_simplex_set_is_refused(tmp_path: Path, parts: dict[str, str], message: str) -> None:
    assert message in refusal(simplex_set(tmp_path, **parts))


@pytest.mark.parametrize(
    ("labels", "message"), [("1 a\n", "no label for node 2"), ("1 a\n1 b\n", "2: a second label for node 1")]
)
def test_bad_node_labels_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    simplex_set(tmp_path, nverts="2", simplices="1 2")
    save(tmp_path / "s-node-labels.txt", labels)
    assert message in refusal(tmp_path)


def test_several_simplex_sets_or_copies_of_a_file_are_refused(tmp_path: Path) -> None:
    for name in ("s", "t"):
        simplex_set(tmp_path, name, nverts="2", simplices="1 2")
    assert "2 simplex sets: s, t; give one" in refusal(tmp_path)
    assert io.read(tmp_path / "t").num_edges == 1
    save(tmp_path / "t-nverts.txt.gz", gzip.compress(b"2\n"))
    assert "t-nverts.txt: stands beside t-nverts.txt.gz" in refusal(tmp_path / "t")


def test_gzip_that_is_truncated_or_corrupt_or_none_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"0 1\n1 2\n" * 50)
    assert io.read(save(tmp_path / "e.txt.gz", whole)).num_edges == 2
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the checksum
    for content in (whole[:-12], bytes(flipped), whole[:10] + b"\xff" * 20, b"0 1\n"):
        assert "truncated or corrupt gzip" in refusal(save(tmp_path / "e.txt.gz", content))


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "none.csv")
    assert "cannot be read: No such file" in refusal(tmp_path / "none.csv", "pairs")
    assert "cannot be read: Is a directory" in refusal(tmp_path, "edges")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "csv"},
            "--world.format csv is not a format; use auto, pairs, simplices, edges, facts, statements, hif",
        ),
        ({"take": "half"}, "--world.take half is not a part; use all, first, last, random_a, random_b"),
        ({"split_frac": 1.0}, "--world.split_frac 1.0 is not a share"),
        ({"split_frac": float("nan")}, "--world.split_frac nan"),
        ({"take": "random_a"}, r"these rows have weights; use all"),
    ],
)
def test_a_bad_request_is_a_config_error(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = save(tmp_path / "p.csv", "u,v,weight\n0,1,1\n")
    with pytest.raises(ConfigError, match=message):
        io.read(path, **options)  # type: ignore[arg-type]


def test_parts_by_time_need_a_times_file(tmp_path: Path) -> None:
    folder = simplex_set(tmp_path, nverts="1 1", simplices="1 2")
    with pytest.raises(ConfigError, match=r"--world\.take first needs a times file"):
        io.read(folder, take="first")
    assert io.read(folder, take="random_a").num_edges == 1
