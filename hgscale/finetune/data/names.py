"""Names that are mentioned together, as a world for ``hgscale pretrain --world.path``."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hgscale.errors import DataError
from hgscale.hypergraph import io
from hgscale.hypergraph.structure import Hypergraph

if TYPE_CHECKING:
    from hgscale.finetune.data.contexts import RelationData


def write_world(data: "RelationData", path: str | Path) -> Hypergraph:
    """Write which names the training contexts mention together, as HIF JSON; no label goes into it.

    Nodes are names in lower case, an edge the distinct names of a context (two or more), its weight the number of
    contexts that mention just those.

    Returns:
        The world written.

    Raises:
        DataError: if no context has two names.
        ConfigError, RunError: if the file cannot be written.
    """
    sets = (frozenset(entity.name.lower() for entity in context.entities) for context in data.train)
    world = co_mentions(sets)
    io.write(world, path, format="hif")
    return world


def co_mentions(sets: Iterable[frozenset[str]], names: Iterable[str] = ()) -> Hypergraph:
    """A world of sets of names, weighted by how often each occurs; those of fewer than two names are left out.

    Args:
        sets: of names.
        names: nodes there are besides.

    Raises:
        DataError: if no set has two names.
    """
    counts = Counter(one for one in sets if len(one) >= 2)
    if not counts:
        raise DataError("co-mentions: no context has two distinct names; a world needs at least one")
    labels = sorted(set(names).union(*counts))
    number = {name: at for at, name in enumerate(labels)}
    edges = [sorted(number[name] for name in one) for one in counts]
    return Hypergraph.from_edges(edges, list(counts.values()), len(labels), labels, "co-mentions")
