"""What a fine-tuning takes: bytes of a worker and of a checkpoint, before anything is started.

Parameters are counted on the network itself, and activations by what two forward passes on the CPU, of one row and of
two, keep for the way back: it grows by as much for each further row. All rows are taken to be as large as the largest
of the training split in each direction (word pieces, entities, objects, pairs), so it is a bound.

Encoders are read from disk for it, a second or a few; torch is loaded only then.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgscale.errors import ConfigError
from hgscale.finetune.rows import frozen_items, image_items, rows_of
from hgscale.finetune.task import FinetuneTask
from hgscale.train.footprint import checkpoint_bytes, is_autocast, state

if TYPE_CHECKING:
    from hgscale.models.multimodal import ContextBatch


@dataclass(frozen=True)
class Shape:
    """The largest row of the training split in each direction, and a micro-batch.

    Attributes:
        entities, objects, pairs, items: of a row; items are its image and objects.
        pieces: of its text; 0 where its features are known.
        rows: of a micro-batch, at most.
    """

    entities: int
    objects: int
    pairs: int
    items: int
    pieces: int
    rows: int


class _Costs:
    """``train.protocol.Costs`` of a fine-tuning."""

    assumed = "if all rows were as large as the largest, with an evaluation"

    def about(self, task: FinetuneTask) -> str:
        train = task.relations.train
        return f"{train.num_pairs:,} pairs in {len(train):,} contexts"

    def worker_bytes(self, task: FinetuneTask, num_workers: int) -> float | None:
        """State, and the most of: activations; buffers of the reduction; the copy that is evaluated and its weights.

        Besides: features of frozen encoders, and the copy where there are evaluations on the way.
        """
        network = _Network(task)
        held = state(task.engine, num_workers, network.parameters, network.trained, network.largest)
        copy = 4 * network.parameters
        kept = network.activations(_shape(task, network, num_workers))
        evaluates = bool(task.train.eval_every)
        moments = kept + copy * evaluates, held.buffers + copy * evaluates, 2 * copy
        return held.weights + held.gradients + held.optimizer + network.feature_bytes + max(moments)

    def checkpoint_bytes(self, task: FinetuneTask) -> float | None:
        network = _Network(task)
        return checkpoint_bytes(task.engine, network.parameters, network.trained)

    def smaller(self, task: FinetuneTask, num_workers: int) -> str:
        micro_batch = task.train.global_batch // (task.train.num_micro(num_workers) * num_workers)
        ways = [f"--train.micro_batch {max(1, micro_batch // 2)}"]
        if task.engine.name == "deepspeed" and task.engine.zero_stage < 3:
            ways.append(f"--engine.zero_stage {task.engine.zero_stage + 1}")
        return ", or ".join([*ways, "--text.tuning frozen"])

    def planned(self, task: FinetuneTask, machines: str, utilisation: float) -> Any:
        raise ConfigError(
            f"assume={machines}: only a pre-training is planned for machines that are not there; leave assume out"
        )


COSTS = _Costs()


class _Network:
    """The loss of a task as a worker has it, but for what frozen encoders said, in whose place are zeros."""

    def __init__(self, task: FinetuneTask) -> None:
        import torch

        from hgscale.finetune.parts import assembled
        from hgscale.finetune.prior import read_prior
        from hgscale.models.encoders import TextEncoder, VisionEncoder
        from hgscale.models.multimodal import RelationLoss, Standardize

        self.task = task
        self.prior_size = 0 if task.model.init_from is None else read_prior(Path(task.model.init_from)).size
        self.text, self.vision = TextEncoder(task.text, task.train.seed), None
        if task.vision is not None and task.sees_images:
            self.vision = VisionEncoder(task.vision, task.train.seed)
        known = {"text": self.text.hidden_size, "vision": 0 if self.vision is None else self.vision.hidden_size}
        laws, self.feature_bytes = {}, 0
        for name, _, items in frozen_items(task, task.relations.splits):
            laws[name] = Standardize(torch.zeros(2, known[name]))
            self.feature_bytes += 4 * known[name] * sum(len(item.keys) for item in items)
        model = assembled(task, laws.get("text", self.text), laws.get("vision", self.vision), self.prior_size)
        self.loss: RelationLoss = RelationLoss(model).train()
        self.parameters = sum(p.numel() for p in model.parameters())
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.largest = max(p.numel() for p in model.parameters())

    def activations(self, shape: Shape) -> float:
        """Bytes that a micro-batch keeps for the way back."""
        import torch

        engine = self.task.engine
        if engine.precision == "bf16" and not is_autocast(engine):
            self.loss = self.loss.bfloat16()
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16, enabled=is_autocast(engine)):
            one, two = (self._kept(self._batch(shape, rows)) for rows in (1, 2))
        return one + (two - one) * (shape.rows - 1)

    def _kept(self, batch: "ContextBatch") -> int:
        """Bytes of the batch, and of what autograd saves of its pass, but for weights."""
        import torch

        sizes: dict[int, int] = {}

        def see(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            loss = self.loss(batch)  # held: what is saved lives as long
        for tensor in vars(batch).values():
            for one in tensor if isinstance(tensor, tuple) else (tensor,):
                if isinstance(one, torch.Tensor):
                    see(one)
        for weight in self.loss.parameters():
            sizes.pop(weight.untyped_storage().data_ptr(), None)
        del loss
        return sum(sizes.values())

    def _batch(self, shape: Shape, rows: int) -> "ContextBatch":
        """Rows that are all as large as the largest."""
        import torch

        from hgscale.models.encoders import TextBatch
        from hgscale.models.multimodal import ContextBatch

        e, o = shape.entities, shape.objects
        text = None
        if shape.pieces:
            pieces = torch.ones(rows, shape.pieces, dtype=torch.int64)
            spans = torch.tensor([0, 1]).expand(rows, e, 2).contiguous()
            text = TextBatch(pieces, torch.ones_like(pieces), spans)
        visual = None
        if self.vision is not None:
            is_frozen = self.vision.config.tuning == "frozen"
            size = (self.vision.hidden_size,) if is_frozen else self.vision.image_shape
            visual = torch.zeros(rows * shape.items, *size)
        row = torch.arange(rows)
        slots = torch.stack([row.repeat_interleave(shape.items), torch.arange(shape.items).repeat(rows)], dim=1)
        pairs = torch.stack([row, torch.zeros_like(row), torch.ones_like(row)], dim=1)
        return ContextBatch(
            text=text,
            mentions=None if text else torch.zeros(rows, e, self.text.hidden_size),
            sentence=None if text else torch.zeros(rows, self.text.hidden_size),
            visual=visual,
            slots=slots,
            entity_mask=torch.ones(rows, e, dtype=torch.bool),
            image_mask=torch.ones(rows, dtype=torch.bool),
            object_mask=torch.ones(rows, o, dtype=torch.bool),
            prior=torch.zeros(rows, e, self.prior_size) if self.prior_size else None,
            pairs=pairs.repeat_interleave(shape.pairs, dim=0),
            labels=torch.zeros(rows * shape.pairs, dtype=torch.int64),
            pair_weight=1.0,
            row_weight=1.0,
            kl_scale=1.0,
        )


def _shape(task: FinetuneTask, network: _Network, num_workers: int) -> Shape:
    contexts = [list(rows_of(context, task.model, task.sees_images)) for context in task.relations.train]
    rows = [row for some in contexts for row in some]
    micro_batch = task.train.global_batch // (task.train.num_micro(num_workers) * num_workers)
    pieces = 0
    if task.text.tuning != "frozen":
        spans = [[(entity.start, entity.end) for entity in row.entities] for row in rows]
        offsets = network.text.tokenize([row.tokens for row in rows], spans).offsets
        pieces = int((offsets[1:] - offsets[:-1]).max())
    shown = [sum(item is not None for item in image_items(row, task.model)) for row in rows]
    return Shape(
        entities=max(2, *(len(row.entities) for row in rows)),
        objects=max(len(row.objects) for row in rows),
        pairs=max(len(row.pairs) for row in rows),
        items=max(shown) if network.vision is not None else 0,
        pieces=pieces,
        rows=sum(sorted((len(some) for some in contexts), reverse=True)[:micro_batch]),
    )
