"""VM-HAN: relations between the entities of a text and the objects of its image, by variational hypergraph attention.

No code and no equations of the paper (arXiv 2404.12006) are public. From it: typed hyperedges, Gaussian nodes and
hyperedges, multi-head attention from nodes to hyperedges and back, and the three parts of the loss. All else is ours:
which nodes each hyperedge has, what its feature is, the feed-forward networks and norms, how log variances start, the
pair state, and the classifier.

A batch of different hypergraphs is one template of hyperedges for the largest of them, and masks: no loop over rows.

Axes: r rows (hypergraphs), e entities, o objects, n nodes (entities, then objects, then the image), m hyperedges,
p pairs, s hyperedges shared by the two nodes of a pair, d width, h heads, a width of a head, c classes; t, v and k
widths of the features of text, vision and prior.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from hgscale.models.hyperedges import EDGE_TYPES, NODE_TYPES, Template, incidence_of, template

LOG_VARIANCE = (-8.0, 4.0)
"""Log variances are kept between these."""

FIRST_LOG_VARIANCE = -4.0
"""Where log variances start, about: noise of a seventh of the means (ours)."""


@dataclass(frozen=True)
class RelationBatch:
    """Rows of a micro-batch. Node i < e is entity i, node e + j is object j, with e and o those of this batch."""

    mentions: Tensor
    """[r e t] text feature of each entity."""
    sentence: Tensor
    """[r t] text feature of the whole."""
    entity_mask: Tensor
    """[r e] bool."""
    image: Tensor | None
    """[r v] feature of the whole image; None: no row has one."""
    image_mask: Tensor
    """[r] bool."""
    objects: Tensor | None
    """[r o v] feature of each object; None: no row has any."""
    object_mask: Tensor
    """[r o] bool."""
    prior: Tensor | None
    """[r e k] what a pre-trained encoder of hyperedges knows of each entity, 0 where nothing."""
    pairs: Tensor
    """[p 3] int64: row, first node, second node."""
    labels: Tensor
    """[p] int64."""
    pair_weight: float
    """1 / pairs of the global batch."""
    row_weight: float
    """1 / rows of the global batch."""
    kl_scale: float
    """0 to 1: how far ``weight_kl`` is warmed up."""

    def to(self, device: torch.device | str) -> "RelationBatch":
        """The same batch on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return RelationBatch(
            **{k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in values.items()}
        )


@dataclass(frozen=True)
class Attention:
    """Who looked where, in the last layer; 0 where there is nothing to look at."""

    incidence: Tensor
    """[r m n] bool: which nodes are in which hyperedge."""
    edge_over_nodes: Tensor
    """[r h m n]: of each hyperedge, summing to 1 over its nodes."""
    node_over_edges: Tensor
    """[r h n m]: of each node, summing to 1 over its hyperedges."""
    pair_over_edges: Tensor
    """[p h s]: of each pair, summing to 1 over the hyperedges that hold both its nodes."""
    pair_edges: Tensor
    """[p s] int64: which hyperedges those are."""
    pair_edge_mask: Tensor
    """[p s] bool: which of them the row has."""


@dataclass(frozen=True)
class VmhanOutput:
    """What a forward pass gives. All scalars are shares of the global batch: they add up over batches and ranks."""

    logits: Tensor
    """[p c]."""
    loss: Tensor
    """Scalar: the weighted sum of the three that follow."""
    classification: Tensor
    """Scalar: cross-entropy, nats per pair."""
    reconstruction: Tensor
    """Scalar: per row, see ``VmhanConfig.reconstruct``."""
    kl: Tensor
    """Scalar: nats per row: the mean over its nodes and the mean over its hyperedges, added."""
    attention: Attention


class Node(NamedTuple):
    """A node as a reader knows it: entity 0, object 2, image 0."""

    type: str
    number: int


@dataclass(frozen=True)
class EdgeWeight:
    """How much a hyperedge counted for a pair."""

    type: str
    nodes: tuple[Node, ...]
    weight: float
    """Mean over heads; the weights of the hyperedges of a pair sum to 1."""
    heads: tuple[float, ...]
    """The weight in each head."""
    node_heads: tuple[tuple[float, ...], ...]
    """[h][node]: how much each of its nodes counted for the hyperedge in the last layer; a head sums to 1."""


@dataclass(frozen=True)
class PairExplanation:
    """The hyperedges that hold both nodes of a pair, heaviest first."""

    row: int
    first: Node
    second: Node
    edges: tuple[EdgeWeight, ...]


class VmhanModelConfig(PretrainedConfig):
    """Shape of a ``Vmhan``: widths of the features it is shown, number of classes, and ``VmhanConfig``'s fields."""

    model_type = "hgscale_vmhan"

    def __init__(
        self,
        text_size: int = 2,
        vision_size: int = 0,
        prior_size: int = 0,
        hidden_size: int = 256,
        num_layers: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
        variational: bool = True,
        structure: str = "hypergraph",
        products: bool = True,
        images: bool = True,
        objects: bool = True,
        reconstruct: str = "features",
        weight_classification: float = 1.0,
        weight_reconstruction: float = 0.1,
        weight_kl: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        """``vision_size`` 0: no visual nodes but those in pairs. ``prior_size`` 0: no prior.

        Of ``kwargs``, ``num_labels`` (default 2) is the number of classes; all are kept.
        """
        self.text_size = text_size
        self.vision_size = vision_size
        self.prior_size = prior_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout
        self.variational = variational
        self.structure = structure
        self.products = products
        self.images = images
        self.objects = objects
        self.reconstruct = reconstruct
        self.weight_classification = weight_classification
        self.weight_reconstruction = weight_reconstruction
        self.weight_kl = weight_kl
        super().__init__(**kwargs)


def kl_from_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(mean, diag exp(log_variance)) from N(0, I), nats.  [... d], [... d] -> [...].

    Source: closed form of two Gaussians, 1/2 sum(mean^2 + variance - 1 - log variance).
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis where the mask holds, 0 where it holds nowhere.  [... n], [... n] bool -> [...]."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)


class Projection(nn.Module):
    """Features of an encoder -> states of width d, of one scale whatever the encoder (ours)."""

    def __init__(self, num_features: int, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """[... t] of any float type -> [... d] of the weights' type."""
        projected: Tensor = self.norm(self.linear(features.to(self.linear.weight.dtype)))
        return projected


class Gaussian(nn.Module):
    """States become Gaussians: mean = W_mu h, log variance = W_s h, kept in bounds."""

    def __init__(self, hidden_size: int, variational: bool) -> None:
        """``variational`` False: no variance, so that every draw is the mean."""
        super().__init__()
        self.mean = nn.Linear(hidden_size, hidden_size)
        self.log_variance = nn.Linear(hidden_size, hidden_size) if variational else None

    def forward(self, h: Tensor) -> tuple[Tensor, ...]:
        """h [... d] -> draws (in evaluation the means), means, and where there is a variance its log; all [... d]."""
        mean = self.mean(h)
        if self.log_variance is None:
            return mean, mean
        log_variance = self.log_variance(h).clamp(*LOG_VARIANCE)
        draw = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if self.training else mean
        return draw, mean, log_variance


class Products(nn.Module):
    """How nodes of a hyperedge go together: the mean over its couples of the products of what they show (ours).

    From means alone a feed-forward network has to find out which nodes match.

    Source: the second-order term of factorization machines (Rendle, ICDM 2010), with a vector in place of a number.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.factor = nn.Linear(hidden_size, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, h: Tensor, members: Tensor) -> Tensor:
        """h [r n d], members [r m n] of 0 and 1 -> [r m d], 0 where a hyperedge has no two nodes."""
        factor = self.factor(h)
        number = reduce(members, "r m n -> r m 1", "sum")
        # Over couples i < j: 2 sum x_i x_j = (sum x_i)^2 - sum x_i^2.
        couples = (members @ factor).square() - members @ factor.square()
        products: Tensor = self.out(couples / (number * (number - 1)).clamp(min=1))
        return products


class Attend(nn.Module):
    """Multi-head attention of queries to the keys that a mask allows; a query without keys gets 0 in every head."""

    def __init__(self, query_size: int, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(query_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """queries [r q d'], keys [r n d], mask [r q n] bool -> [r q d], weights [r h q n]."""
        q = rearrange(self.query(queries), "r q (h a) -> r h q a", h=self.num_heads)
        k = rearrange(self.key(keys), "r n (h a) -> r h a n", h=self.num_heads)
        v = rearrange(self.value(keys), "r n (h a) -> r h n a", h=self.num_heads)
        weights = masked_softmax(q @ k * q.shape[-1] ** -0.5, rearrange(mask, "r q n -> r 1 q n"))
        return self.out(rearrange(weights @ v, "r h q a -> r q (h a)")), weights


class AttendGathered(Attend):
    """The same where each query picks its own few keys among many: those of all rows, say."""

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """queries [p d'], keys [u d], mask [p s] bool, index [p s] int64 into keys -> [p d], weights [p h s]."""
        q = rearrange(self.query(queries), "p (h a) -> p h a", h=self.num_heads)
        k = rearrange(F.embedding(index, self.key(keys)), "p s (h a) -> p h s a", h=self.num_heads)
        v = rearrange(F.embedding(index, self.value(keys)), "p s (h a) -> p h s a", h=self.num_heads)
        scores = einsum(q, k, "p h a, p h s a -> p h s") * q.shape[-1] ** -0.5
        weights = masked_softmax(scores, rearrange(mask, "p s -> p 1 s"))
        return self.out(rearrange(einsum(weights, v, "p h s, p h s a -> p h a"), "p h a -> p (h a)")), weights


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where the mask holds; 0 elsewhere, and everywhere if it holds nowhere."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a softmax of nothing else is not a number
    return torch.softmax(scores.masked_fill(~mask, lowest), dim=-1) * mask


class Update(nn.Module):
    """What attention found is added to a state; then a feed-forward network (ours). Norms behind both."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.up = nn.Linear(hidden_size, 2 * hidden_size)
        self.down = nn.Linear(2 * hidden_size, hidden_size)
        self.norm_mlp = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, found: Tensor) -> Tensor:
        """x [... d], found [... d] -> [... d]."""
        x = self.norm(x + self.dropout(found))
        updated: Tensor = self.norm_mlp(x + self.dropout(self.down(F.gelu(self.up(x)))))
        return updated


class VhanLayer(nn.Module):
    """Hyperedges read their nodes, then nodes read their hyperedges."""

    def __init__(self, config: VmhanModelConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.edge_reads = Attend(d, d, config.num_heads)
        self.edge_update = Update(d, config.dropout)
        self.node_reads = Attend(d, d, config.num_heads)
        self.node_update = Update(d, config.dropout)

    def forward(self, nodes: Tensor, edges: Tensor, incidence: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """nodes [r n d], edges [r m d], incidence [r m n] bool -> both anew, weights [r h m n] and [r h n m]."""
        found, edge_over_nodes = self.edge_reads(edges, nodes, incidence)
        edges = self.edge_update(edges, found)
        found, node_over_edges = self.node_reads(nodes, edges, rearrange(incidence, "r m n -> r n m"))
        return self.node_update(nodes, found), edges, edge_over_nodes, node_over_edges


class Vmhan(PreTrainedModel):
    """Logits of the relation of every pair, all pairs of a row from one hypergraph, in one pass."""

    config_class = VmhanModelConfig
    config: VmhanModelConfig
    main_input_name = "batch"

    def __init__(self, config: VmhanModelConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.text = Projection(config.text_size, d)
        self.sentence = Projection(config.text_size, d)
        self.vision = Projection(config.vision_size, d) if config.vision_size else None
        # No bias: what is not known adds nothing.
        self.prior = nn.Linear(config.prior_size, d, bias=False) if config.prior_size else None
        self.node_type = nn.Embedding(len(NODE_TYPES), d)
        self.edge_type = nn.Embedding(len(EDGE_TYPES[config.structure]), d)
        self.products = Products(d) if config.products else None
        self.node_gaussian = Gaussian(d, config.variational)
        self.edge_gaussian = Gaussian(d, config.variational)
        self.layers = nn.ModuleList(VhanLayer(config) for _ in range(config.num_layers))
        self.pair_reads = AttendGathered(2 * d, d, config.num_heads)
        self.decoder = nn.Linear(d, d) if config.reconstruct == "features" else None
        self.classifier = nn.Sequential(
            nn.Linear(5 * d, d), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(d, config.num_labels)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                noisy = module in (self.node_gaussian.log_variance, self.edge_gaussian.log_variance)
                nn.init.constant_(module.bias, FIRST_LOG_VARIANCE if noisy else 0.0)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, batch: RelationBatch) -> VmhanOutput:
        """All pairs of all rows. The same modules are called whatever the batch holds, as ZeRO 3 needs it.

        In training, noise and dropout come from torch's global generator; in evaluation there is none.
        """
        graph, node_mask, h = self._nodes(batch)
        incidence = incidence_of(graph, node_mask)
        edge_mask = incidence.any(-1)
        nodes, *node_law = self.node_gaussian(h)
        edges, *edge_law = self.edge_gaussian(self._edges(graph, h, incidence, batch.sentence))
        reconstruction = self._reconstruction(h, nodes, edges, node_mask, incidence)
        kl = self._kl(node_law, node_mask) + self._kl(edge_law, edge_mask)
        for layer in cast(Iterable[VhanLayer], self.layers):
            nodes, edges, edge_over_nodes, node_over_edges = layer(nodes, edges, incidence)
        logits, pair_attention = self._classify(graph, nodes, edges, edge_mask, batch.pairs)
        return self._output(
            batch, logits, reconstruction, kl, Attention(incidence, edge_over_nodes, node_over_edges, *pair_attention)
        )

    def _nodes(self, batch: RelationBatch) -> tuple[Template, Tensor, Tensor]:
        """The template of the batch, which of its nodes each row has [r n], and their features h [r n d]."""
        num_rows, e = batch.entity_mask.shape
        o = batch.object_mask.shape[1]
        graph = template(self.config.structure, e, o, batch.pairs.device)
        node_mask = torch.cat([batch.entity_mask, *self._visible(batch)], dim=1)
        entities = self.text(batch.mentions)
        if self.prior is not None:
            known = batch.prior
            if known is None:
                known = batch.mentions.new_zeros(num_rows, e, self.config.prior_size)
            entities = entities + self.prior(known.to(self.prior.weight.dtype))
        visual = entities.new_zeros(num_rows, o + 1, self.config.hidden_size)
        if self.vision is not None:
            objects, image = batch.objects, batch.image
            if objects is None:
                objects = batch.mentions.new_zeros(num_rows, o, self.config.vision_size)
            if image is None:
                image = batch.mentions.new_zeros(num_rows, self.config.vision_size)
            visual = self.vision(torch.cat([objects, rearrange(image, "r v -> r 1 v")], dim=1))
        h = torch.cat([entities, visual], dim=1) + self.node_type(graph.node_types)
        return graph, node_mask, torch.where(rearrange(node_mask, "r n -> r n 1"), h, 0.0)

    def _visible(self, batch: RelationBatch) -> tuple[Tensor, Tensor]:
        """Which objects [r o] and image [r 1] are nodes: those that there are and that the configuration lets in."""
        sees = self.config.vision_size > 0
        image_mask = batch.image_mask & (sees and self.config.images and batch.image is not None)
        # An object that is itself to be related is a node, whatever is left out.
        num_rows, e = batch.entity_mask.shape
        row, first, second = rearrange(batch.pairs, "p three -> three p")
        asked = torch.zeros(num_rows, e + batch.object_mask.shape[1], dtype=torch.bool, device=batch.pairs.device)
        asked[row, first] = True
        asked[row, second] = True
        shown = sees and self.config.objects and batch.objects is not None
        return batch.object_mask & (asked[:, e:] | shown), rearrange(image_mask, "r -> r 1")

    def _edges(self, graph: Template, h: Tensor, incidence: Tensor, sentence: Tensor) -> Tensor:
        """Features of hyperedges: their type, the mean of their nodes, their products, the sentence where it belongs.

        h [r n d], incidence [r m n], sentence [r t] -> [r m d].
        """
        members = incidence.to(h.dtype)
        mean = members @ h / reduce(members, "r m n -> r m 1", "sum").clamp(min=1)
        said = rearrange(self.sentence(sentence), "r d -> r 1 d") * rearrange(graph.says, "m -> m 1")
        feature: Tensor = mean + said + self.edge_type(graph.types)
        return feature if self.products is None else feature + self.products(h, members)

    def _reconstruction(self, h: Tensor, nodes: Tensor, edges: Tensor, node_mask: Tensor, incidence: Tensor) -> Tensor:
        """Of each row, [r]: the mean squared error of a value of h, or the mean nats of a node in or out of an edge.

        h [r n d], nodes [r n d], edges [r m d], node_mask [r n], incidence [r m n].
        """
        if self.decoder is not None:
            error = wide(self.decoder(nodes) - h.detach()).square().mean(-1)
            return masked_mean(error, node_mask)
        scores = wide(edges @ rearrange(nodes, "r n d -> r d n")) * nodes.shape[-1] ** -0.5
        nats = F.binary_cross_entropy_with_logits(scores, incidence.to(scores.dtype), reduction="none")
        places = rearrange(node_mask, "r n -> r 1 n") & reduce(incidence, "r m n -> r m 1", "any")
        return masked_mean(rearrange(nats, "r m n -> r (m n)"), rearrange(places, "r m n -> r (m n)"))

    def _kl(self, law: list[Tensor], mask: Tensor) -> Tensor:
        """Mean divergence over what each row has.  mean and log variance [r n d], mask [r n] -> [r]."""
        if not self.config.variational:
            return wide(law[0]).new_zeros(mask.shape[0])
        return masked_mean(kl_from_standard_normal(*map(wide, law)), mask)

    def _classify(
        self, graph: Template, nodes: Tensor, edges: Tensor, edge_mask: Tensor, pairs: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """nodes [r n d], edges [r m d], edge_mask [r m], pairs [p 3] -> [p c], (weights [p h s], which [p s], mask)."""
        num_nodes, num_edges = nodes.shape[1], edges.shape[1]
        row, first, second = rearrange(pairs, "p three -> three p")
        flat_nodes = rearrange(nodes, "r n d -> (r n) d")
        one = F.embedding(row * num_nodes + first, flat_nodes)
        other = F.embedding(row * num_nodes + second, flat_nodes)
        summary = (edge_mask & graph.summary).to(edges.dtype)
        summary = summary / reduce(summary, "r m -> r 1", "sum").clamp(min=1)
        whole = F.embedding(row, einsum(summary, edges, "r m, r m d -> r d"))
        shared = graph.shared[first, second]
        mask = graph.shared_mask[first, second] & edge_mask[rearrange(row, "p -> p 1"), shared]
        places = rearrange(row * num_edges, "p -> p 1") + shared
        found, weights = self.pair_reads(
            torch.cat([one, other], dim=-1), rearrange(edges, "r m d -> (r m) d"), mask, places
        )
        logits = self.classifier(torch.cat([one, other, whole, found, one * other], dim=-1))
        return logits, (weights, shared, mask)

    def _output(
        self, batch: RelationBatch, logits: Tensor, reconstruction: Tensor, kl: Tensor, attention: Attention
    ) -> VmhanOutput:
        config = self.config
        nats = F.cross_entropy(wide(logits), batch.labels, reduction="sum") * batch.pair_weight
        reconstruction = reconstruction.sum() * batch.row_weight
        kl = kl.sum() * batch.row_weight
        loss = (
            config.weight_classification * nats
            + config.weight_reconstruction * reconstruction
            + config.weight_kl * batch.kl_scale * kl
        )
        return VmhanOutput(logits, loss, nats, reconstruction, kl, attention)

    @torch.no_grad()
    def explain(self, batch: RelationBatch) -> list[PairExplanation]:
        """Which hyperedges, and which of their nodes, the classifier looked at for each pair, in the batch's order.

        The weights are those of the pair state and of the last layer, in evaluation: a reading of the model, not a
        proof of cause.
        """
        training = self.training
        attention = self.eval()(batch).attention
        self.train(training)
        names = [
            *(Node("entity", i) for i in range(batch.entity_mask.shape[1])),
            *(Node("object", i) for i in range(batch.object_mask.shape[1])),
            Node("image", 0),
        ]
        graph = template(
            self.config.structure, batch.entity_mask.shape[1], batch.object_mask.shape[1], batch.pairs.device
        )
        types = [EDGE_TYPES[self.config.structure][number] for number in graph.types.tolist()]
        found = []
        for pair, (row, first, second) in enumerate(batch.pairs.tolist()):
            edges = []
            for place in attention.pair_edge_mask[pair].nonzero().flatten().tolist():
                edge = int(attention.pair_edges[pair, place])
                inside = attention.incidence[row, edge].nonzero().flatten()
                heads = attention.pair_over_edges[pair, :, place]
                edges.append(
                    EdgeWeight(
                        types[edge],
                        tuple(names[node] for node in inside.tolist()),
                        float(heads.mean()),
                        tuple(heads.tolist()),
                        tuple(map(tuple, attention.edge_over_nodes[row, :, edge][:, inside].tolist())),
                    )
                )
            edges.sort(key=lambda edge: -edge.weight)
            found.append(PairExplanation(row, names[first], names[second], tuple(edges)))
        return found


def wide(x: Tensor) -> Tensor:
    """At least float32, in which losses are summed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


AutoConfig.register(VmhanModelConfig.model_type, VmhanModelConfig)
AutoModel.register(VmhanModelConfig, Vmhan)
