"""What a pre-training takes, from numbers alone: memory of a worker, operations, bytes moved and sent, seconds.

Nothing is started, and neither torch nor Ray is loaded: the arithmetic follows what ``models/encoder.py``,
``models/losses.py`` and ``train/engine.py`` do, and is held against them by tests/unit/pretrain/test_cost.py (memory by
counting the bytes of tensors, operations by torch's counter) and tests/bench/bench_plan.py (seconds too).

Contexts. A batch costs its distinct contexts (``data/masking.py``). Assumed is the worst: no two samples share one, but
for those that hide all of their nodes, which are one context. Worlds whose samples repeat cost less.

Axes: P parameters, W workers, c contexts of a micro-batch, n keys of a context, u nodes that are read, V nodes of the
world, L layers, d width, k width of the tables, f inner width, a bytes of a number in the forward pass (4; 2 in bf16).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from hgscale.data.masking import ObjectiveConfig, padded_widths
from hgscale.errors import ConfigError
from hgscale.hypergraph.structure import World
from hgscale.models.config import MAX_LOGITS, MODELS, ModelConfig
from hgscale.pretrain.task import PretrainTask
from hgscale.train import footprint
from hgscale.train.config import EngineConfig
from hgscale.train.deepspeed_json import DEFAULT_BUCKET
from hgscale.train.footprint import is_autocast

GIB = 2**30
UTILISATION = 0.4
"""Share of the peak that matrix products reach, assumed: large products reach 0.5 to 0.7 of a data sheet's number, and
those here share the time with softmax, norms and starts of kernels."""

BANDWIDTH_FRAC = 0.7
"""Share of the data sheet's memory and network bandwidth that passes over large tensors reach, assumed."""

UPDATE_BYTES = 44
"""Moved for each weight that a worker updates: its gradient is cleared (4), measured (4) and scaled (8); AdamW reads
weight, gradient and two means, and writes all but the gradient (28)."""

MARGIN_FRAC = 0.1
"""Share of a device's memory that is left to its driver, its libraries and fragmentation."""


@dataclass(frozen=True)
class Device:
    """What one worker computes on. Rates are peaks, as vendors give them: dense, without sparsity.

    Attributes:
        memory_gib: of the device.
        bf16_tflops: matrix products of bf16, 1e12 operations per second.
        fp32_tflops: the same of fp32.
        memory_gb_per_s: 1e9 bytes per second to and from its memory.
        link_gb_per_s: 1e9 bytes per second that it sends to the devices of its node, in one direction.
        network_gb_per_s: the same to other nodes, where each device has a network card of its own.
    """

    memory_gib: float
    bf16_tflops: float
    fp32_tflops: float
    memory_gb_per_s: float
    link_gb_per_s: float
    network_gb_per_s: float


# NVIDIA's data sheets: "A100 80GB SXM", "H100 SXM", "H200 SXM", "HGX B200" (per GPU), "L40S"; their GB are taken as
# 1e9 bytes, a little less than the driver shows; bf16 is half of the number "with sparsity"; a link's direction is half
# of the bidirectional number. Network: what NVIDIA's DGX of that GPU has for each, 200 Gb/s (A100) and 400 Gb/s (H100,
# H200, B200); of L40S servers, which share cards, 100 Gb/s are taken; L40S speaks to its node by PCIe 4.0 x16.
DEVICES = {
    "A100": Device(80e9 / GIB, 312, 19.5, 2039, 300, 25),
    "H100": Device(80e9 / GIB, 989, 67, 3350, 450, 50),
    "H200": Device(141e9 / GIB, 989, 67, 4800, 450, 50),
    "B200": Device(180e9 / GIB, 2250, 75, 7700, 900, 50),
    "L40S": Device(48e9 / GIB, 362, 91.6, 864, 32, 12.5),
}


@dataclass(frozen=True)
class Machines:
    """A cluster that may not be there: ``num_nodes`` x ``per_node`` workers with a device each."""

    num_nodes: int
    per_node: int
    name: str
    device: Device

    @property
    def num_workers(self) -> int:
        return self.num_nodes * self.per_node

    @classmethod
    def parse(cls, text: str) -> "Machines":
        """NODESxGPUSxMODEL, as in 4x8xH200.

        Raises:
            ConfigError: if it is not of that form, or the GPU is not in the table.
        """
        parts = text.split("x", 2)
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts[:2]):
            raise ConfigError(f"assume={text}: not NODESxGPUSxMODEL, two numbers above 0 and a GPU; as in 4x8xH200")
        name = parts[2].upper()
        if name not in DEVICES:
            raise ConfigError(f"assume={text}: {parts[2]} is not in the table of GPUs; use {', '.join(DEVICES)}")
        return cls(int(parts[0]), int(parts[1]), name, DEVICES[name])


@dataclass(frozen=True)
class Shape:
    """A set encoder by its sizes, for one world.

    Attributes:
        num_nodes: V.
        max_size: largest edge.
        num_sizes: how many sizes there are.
        width, table_width, inner: d, k, f.
        num_layers, num_heads: of the blocks.
        checkpointing: activations are computed twice in place of being kept.
    """

    num_nodes: int
    max_size: int
    num_sizes: int
    width: int
    table_width: int
    inner: int
    num_layers: int
    num_heads: int
    checkpointing: bool

    @classmethod
    def of(cls, model: ModelConfig, world: World) -> "Shape":
        """Of a config.

        Raises:
            ConfigError: if the model is not ours.
        """
        if not model.kind().planned:
            planned = ", ".join(name for name in MODELS if MODELS.get(name, "model.name").planned)
            raise ConfigError(f"model.name={model.name}: only {planned} is planned; measure others by a short run")
        d = model.hidden_size
        return cls(
            num_nodes=world.num_nodes,
            max_size=world.max_size,
            num_sizes=len(world.distinct_sizes),
            width=d,
            table_width=int(model.config.get("embedding_size") or d),
            inner=int(model.config.get("intermediate_size") or 4 * d),
            num_layers=model.num_hidden_layers,
            num_heads=model.num_attention_heads,
            checkpointing=model.activation_checkpointing,
        )

    @property
    def block_parameters(self) -> int:
        """Of one layer: query, keys and values, output, both maps of the inner network, three norms."""
        d, f = self.width, self.inner
        return (d * d + d) + (2 * d * d + 2 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 6 * d

    @property
    def table_parameters(self) -> int:
        """Nodes in and out, with a bias for each node that comes out."""
        return self.num_nodes * (2 * self.table_width + 1)

    @property
    def num_parameters(self) -> int:
        """P."""
        d, k = self.width, self.table_width
        widths = 2 * d * k if k != d else 0
        rest = (self.max_size + 1) * d + 2 * d + self.num_sizes
        return self.table_parameters + self.num_layers * self.block_parameters + widths + rest


@dataclass(frozen=True)
class Batch:
    """A micro-batch as the model sees it.

    Attributes:
        contexts: c.
        keys: n, mean over contexts: their mask token, their visible nodes, and padding.
        read: u, nodes and mask tokens that are read.
        num_buckets: of contexts of like width.
    """

    contexts: int
    keys: float
    read: int
    num_buckets: int

    @classmethod
    def worst(cls, shape: Shape, objective: ObjectiveConfig, num_samples: int) -> "Batch":
        """No two samples share a context that shows something, and no two contexts a node, as far as there are nodes.

        All samples that show nothing are one context; at least so many do as turns of the objective ask it of the
        largest edge.
        """
        visible = [shape.max_size - hidden for hidden in objective.objective().hidden(shape.max_size)]
        blank = visible.count(0)
        contexts = num_samples - num_samples * blank // len(visible) + min(1, blank)
        widths = padded_widths(shape.max_size)
        padded = [next(hi for lo, hi in widths if lo <= count <= hi) for count in visible]
        shows_all = contexts * sum(padded) / len(padded) >= shape.num_nodes
        shown = round(num_samples * sum(visible) / len(visible)) + 1  # a PAD shows node 0
        nodes = shape.num_nodes if shows_all else min(shape.num_nodes, shown)
        keys = 1 + sum(padded) / len(padded)
        return cls(contexts, keys, nodes + shape.max_size + 1, len(set(padded)))


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker at its most.

    Attributes:
        weights, gradients, optimizer: there all the time, or as good as.
        activations, logits: there when the way back begins.
        buffers: there while gradients are reduced: when the way back ends, or all along it where a bucket does not
            hold all of them.
        total: the worst moment.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float
    total: float


LOGIT_COPIES = 5
"""fp32 copies of a chunk's logits that are alive at once, on the way back (counted: tests/bench/bench_plan.py)."""


def memory(shape: Shape, batch: Batch, engine: EngineConfig, num_workers: int) -> Memory:
    """Bytes of one worker at its most.

    state        weights, gradients, optimizer and buffers, see ``train.footprint.state``
    activations  see ``activations``; and the bf16 copy of the weights in autocast
    logits       20 bytes for each logit of a chunk, or 4 and the gradient of the table; that of earlier chunks beside
    """
    params, table = shape.num_parameters, shape.num_nodes * shape.table_width
    held = footprint.state(engine, num_workers, params, params, table)
    size = 2 if engine.precision == "bf16" and engine.name == "deepspeed" and engine.zero_stage else 4
    kept, working = activations(shape, batch, engine)
    kept += 2 * params if is_autocast(engine) else 0
    rows = chunk_rows(shape, batch)
    before = size * table if rows < batch.contexts else 0
    logits = max(4 * LOGIT_COPIES * rows * shape.num_nodes + before, 4 * rows * shape.num_nodes + size * table + before)
    bucket = held.buffers
    moments = kept + logits, kept + working, bucket + (kept + working if params > DEFAULT_BUCKET else 0)
    total = held.weights + held.gradients + held.optimizer + max(moments)
    return Memory(held.weights, held.gradients, held.optimizer, kept + working, logits, bucket, total)


def chunk_rows(shape: Shape, batch: Batch) -> int:
    """Contexts whose logits are alive at once, see ``models.losses.chunked_nll``."""
    return min(batch.contexts, max(1, MAX_LOGITS // shape.num_nodes))


def activations(shape: Shape, batch: Batch, engine: EngineConfig) -> tuple[float, float]:
    """Bytes kept for the way back, and those of the one layer that is computed again on it.

    Of a layer: for each context two inputs of norms, three inputs of linear maps, the query, and the inner state on
    both sides of its nonlinearity, 6 d + 2 f; keys and values of its n keys, 2 n d; their weights, n h; and for each
    node that is read the input of keys and values, d. With activation checkpointing only the state between layers is
    kept, c d, and one layer at a time is whole. Besides: nodes before and after they are widened, and the last states.
    Derived here from what autograd saves for each operation in ``models/encoder.py``.
    """
    c, n, u = batch.contexts, batch.keys, batch.read
    d, k, f = shape.width, shape.table_width, shape.inner
    size = 2 if engine.precision == "bf16" else 4  # inputs of linear maps
    norm = 4 if is_autocast(engine) else size  # inputs of norms
    layer = c * (2 * d * norm + (4 * d + 2 * f + 2 * n * d) * size + n * shape.num_heads * norm) + u * d * size
    kept = shape.num_layers * (c * d * norm if shape.checkpointing else layer)
    ends = u * (d * norm + (k * size if k != d else 0)) + c * (d * norm + (d * size if k != d else 0) + k * size)
    return kept + ends, layer if shape.checkpointing else 0.0


def checkpoint_bytes(num_parameters: int, engine: EngineConfig) -> float:
    """Bytes of one checkpoint, over all workers."""
    return footprint.checkpoint_bytes(engine, num_parameters, num_parameters)


@dataclass(frozen=True)
class Work:
    """What one worker does for one micro-batch.

    Attributes:
        flops: operations of matrix products, two for each multiply-add, forward and backward.
        useful_flops: the same without what is computed twice to save memory.
        logit_bytes: moved to and from memory for logits, by passes over them and by products with the table.
        layer_bytes: moved by all in the layers that is no product.
        table_bytes: moved for the gradient of the table of nodes that come in.
    """

    flops: float
    useful_flops: float
    logit_bytes: float
    layer_bytes: float
    table_bytes: float

    @property
    def bytes_moved(self) -> float:
        return self.logit_bytes + self.layer_bytes + self.table_bytes


def work(shape: Shape, batch: Batch, engine: EngineConfig) -> Work:
    """Of one micro-batch, forward and backward.

    Forward, in multiply-adds: for each context and layer 2 d^2 + 2 d f (query, output, inner network), for each node
    that is read and layer 2 d^2 (keys and values) and once k d (widening), for each context d k (narrowing) and k V
    (logits). Backward twice that, for two operands. Activation checkpointing computes the layers once more, but for the
    last product of the last bucket; logits in chunks are computed once more.

    Moved, for each logit 36 bytes forward and 50 backward (each pass of linear, hiding, conversion, logsumexp and their
    gradients reads and writes fp32), forward twice where there are chunks; for each chunk three readings of the table
    and its gradient written once and added once (3). Of layers, in numbers read or written forward: 16 d + 4 f for each
    context, 10 d for each of its keys (gathered, multiplied, summed), 5 d for each node that is read; backward twice
    that. For the table of nodes that come in 16 bytes a number: its gradient is dense, cleared and added (4, 12).
    Derived here from ``models/losses.py`` and ``models/encoder.py``, operation by operation.
    """
    c, u, num_layers = batch.contexts, batch.read, shape.num_layers
    d, k, f, num_nodes = shape.width, shape.table_width, shape.inner, shape.num_nodes
    layers = 2 * num_layers * (c * (2 * d * d + 2 * d * f) + u * 2 * d * d)
    tables = 2 * c * k * num_nodes + (2 * k * d * (u + c) if k != d else 0)
    rows = chunk_rows(shape, batch)
    num_chunks = math.ceil(c / rows)
    useful = 3.0 * (layers + tables)
    again = 0.0
    if shape.checkpointing:
        again += layers - 2 * num_layers * d * f * c / batch.num_buckets
    if num_chunks > 1:
        again += 2 * c * k * num_nodes
    size = 2 if engine.precision == "bf16" else 4
    per_logit = 36 * (2 if num_chunks > 1 else 1) + 50
    of_logits = per_logit * c * num_nodes + num_chunks * (3 + 4) * size * num_nodes * k
    passes = num_layers * (c * (16 * d + 4 * f + 10 * d * batch.keys) + u * 5 * d)
    of_layers = size * passes * (4 if shape.checkpointing else 3)
    return Work(useful + again, useful, of_logits, of_layers, 16 * num_nodes * k)


def bytes_sent(shape: Shape, engine: EngineConfig, num_workers: int, num_micro: int) -> float:
    """Bytes that one worker sends in a step, by rings: an all-reduce of s bytes sends 2 s (W - 1) / W, a
    reduce-scatter or all-gather half of that.

    Gradients travel in fp32. Stages 0 and 1 and torch reduce them once (1 then gathers the weights); 2 and 3 scatter
    them in each micro-batch, 2 then gathers the weights, 3 gathers them in each pass of each micro-batch.
    """
    params, share = shape.num_parameters, (num_workers - 1) / num_workers
    zero = engine.zero_stage if engine.name == "deepspeed" else 0
    size = 2 if engine.precision == "bf16" and zero else 4
    if zero == 0:
        return 2 * 4 * params * share
    if zero == 1:
        return (2 * 4 + size) * params * share
    if zero == 2:
        return (4 * num_micro + size) * params * share
    return num_micro * (4 + 2 * size) * params * share


@dataclass(frozen=True)
class Plan:
    """A training on machines that may not be there.

    Attributes:
        task: what is trained.
        machines: on what.
        shape, batch, memory, work: of one worker, the latter of a micro-batch.
        num_parameters: P.
        num_micro: micro-batches of a step and worker.
        compute_s, memory_s, network_s, optimizer_s: parts of a step, none of which is taken to hide another.
    """

    task: PretrainTask
    machines: Machines
    engine: EngineConfig
    shape: Shape
    batch: Batch
    memory: Memory
    work: Work
    micro_batch: int
    num_micro: int
    global_batch: int
    num_steps: int
    utilisation: float
    compute_s: float
    memory_s: float
    network_s: float
    optimizer_s: float

    @property
    def step_s(self) -> float:
        return self.compute_s + self.memory_s + self.network_s + self.optimizer_s

    @property
    def samples_per_s(self) -> float:
        return self.global_batch / self.step_s

    @property
    def days(self) -> float:
        return self.num_steps * self.step_s / 86400

    @property
    def needed_bytes(self) -> float:
        return self.memory.total

    @property
    def room_bytes(self) -> float:
        """Of a device, that training may use."""
        return (1 - MARGIN_FRAC) * self.machines.device.memory_gib * GIB

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.room_bytes

    def remedies(self) -> list[str]:
        """Changes of one setting, or of few, with which it would fit; the least first, none where none does."""
        tried = _changes(self.task, self.machines)
        return [words for words, task, machines in tried if plan(task, machines, self.utilisation).fits][:3]

    def text(self) -> str:
        """What ``hgscale preflight --assume`` prints, but for the verdict."""
        shape, machines, per_micro = self.shape, self.machines, self.memory
        saving = ", activation checkpointing" if shape.checkpointing else ""
        stage = f"ZeRO {self.engine.zero_stage}" if self.engine.name == "deepspeed" else "torch"
        notes = {
            "logits": f"   of {chunk_rows(shape, self.batch):,} contexts at a time",
            "buffers": "   of buckets of gradients",
            "total": "   logits and buffers are there one after the other",
        }
        gib = {name: getattr(per_micro, name) / GIB for name in Memory.__dataclass_fields__}
        share = self.work.useful_flops * self.num_micro / self.step_s
        peak = machines.device.bf16_tflops if self.engine.precision == "bf16" else machines.device.fp32_tflops
        where = "link" if machines.num_nodes == 1 else "network"
        lines = [
            f"machines      {machines.num_nodes} x {machines.per_node} {machines.name} "
            f"({machines.device.memory_gib:.1f} GiB each), {stage}, {self.engine.precision}{saving}",
            f"parameters    {shape.num_parameters:,}: tables {shape.table_parameters:,}, "
            f"{shape.num_layers} layers {shape.num_layers * shape.block_parameters:,}",
            f"batch         {self.global_batch:,} samples = {machines.num_workers} GPUs x {self.num_micro} "
            f"micro-batches x {self.micro_batch:,}",
            f"contexts      {self.batch.contexts:,} of a micro-batch, the most there can be",
            "memory        GiB of each GPU, at its most",
            *(f"  {name:<12}{value:>8.2f}{notes.get(name, '')}" for name, value in gib.items()),
            "step          seconds, none hidden behind another",
            f"  {'products':<12}{self.compute_s:>8.3f}   {self.num_micro * self.work.flops / 1e12:,.1f} TFLOP at "
            f"{self.utilisation:.0%} (assumed) of {peak:g} TFLOP/s",
            f"  {'memory':<12}{self.memory_s:>8.3f}   {self.num_micro * self.work.bytes_moved / 1e9:,.0f} GB moved "
            f"besides at {BANDWIDTH_FRAC:.0%} of {machines.device.memory_gb_per_s:,g} GB/s",
            f"  {where:<12}{self.network_s:>8.3f}   {BANDWIDTH_FRAC:.0%} of "
            f"{machines.device.link_gb_per_s if machines.num_nodes == 1 else machines.device.network_gb_per_s:g} GB/s",
            f"  {'optimizer':<12}{self.optimizer_s:>8.3f}",
            f"  {'total':<12}{self.step_s:>8.3f}   {share / peak / 1e12:.1%} of the peak in useful operations",
            f"speed         {self.samples_per_s:,.0f} samples/s",
            f"training      {self.num_steps:,} steps, {self.num_steps * self.global_batch:,} samples, "
            f"{self.days:.2f} days",
            f"checkpoint    {checkpoint_bytes(shape.num_parameters, self.engine) / 1e9:,.1f} GB each",
        ]
        return "\n".join(lines)


def plan(task: PretrainTask, machines: Machines, utilisation: float = UTILISATION) -> Plan:
    """Plan a training, whether it fits or not.

    step_s = compute_s + memory_s + network_s + optimizer_s:
        compute_s    num_micro x flops / (peak x utilisation)
        memory_s     num_micro x bytes moved / (memory bandwidth x 0.7)
        network_s    bytes sent / (bandwidth x 0.7), of the link in one node, of the network between several
        optimizer_s  44 bytes for each weight that this worker updates / (memory bandwidth x 0.7)

    Raises:
        ConfigError: if the batch does not divide among the workers, or the model is not ours.
    """
    engine, num_workers, device = task.engine, machines.num_workers, machines.device
    num_micro = task.train.num_micro(num_workers)
    micro_batch = task.train.global_batch // (num_micro * num_workers)
    shape = Shape.of(task.model, task.target_world)
    batch = Batch.worst(shape, task.objective, micro_batch)
    done = work(shape, batch, engine)
    peak = device.bf16_tflops if engine.precision == "bf16" else device.fp32_tflops
    bandwidth = BANDWIDTH_FRAC * 1e9 * device.memory_gb_per_s
    wire = BANDWIDTH_FRAC * 1e9 * (device.link_gb_per_s if machines.num_nodes == 1 else device.network_gb_per_s)
    is_shared = engine.name == "deepspeed" and engine.zero_stage > 0
    return Plan(
        task=task,
        machines=machines,
        engine=engine,
        shape=shape,
        batch=batch,
        memory=memory(shape, batch, engine, num_workers),
        work=done,
        micro_batch=micro_batch,
        num_micro=num_micro,
        global_batch=task.train.global_batch,
        num_steps=task.train.num_steps,
        utilisation=utilisation,
        compute_s=num_micro * done.flops / (peak * 1e12 * utilisation),
        memory_s=num_micro * done.bytes_moved / bandwidth,
        network_s=bytes_sent(shape, engine, num_workers, num_micro) / wire,
        optimizer_s=UPDATE_BYTES * shape.num_parameters / (num_workers if is_shared else 1) / bandwidth,
    )


def _changes(task: PretrainTask, machines: Machines) -> Iterator[tuple[str, PretrainTask, Machines]]:
    """What could be changed: activation checkpointing, the ZeRO stage, the micro-batch, the number of GPUs."""
    model, engine = task.model, task.engine
    saving = replace(task, model=replace(model, activation_checkpointing=True))
    if not model.activation_checkpointing:
        yield "--model.activation_checkpointing true", saving, machines
    stages: list[Literal[1, 2, 3]] = [1, 2, 3]
    stages = [stage for stage in stages if engine.name == "torch" or stage > engine.zero_stage]
    for stage in stages:
        shared = replace(task, engine=replace(engine, name="deepspeed", zero_stage=stage))
        name = "--engine.name deepspeed " if engine.name == "torch" else ""
        yield f"{name}--engine.zero_stage {stage}", shared, machines
    micro = task.train.global_batch // (task.train.num_micro(machines.num_workers) * machines.num_workers)
    smaller = [size for size in _divisors(micro) if size < micro]
    for size in smaller[:24]:
        yield f"--train.micro_batch {size}", replace(task, train=replace(task.train, micro_batch=size)), machines
    if smaller and stages:
        most = replace(
            saving,
            engine=replace(engine, name="deepspeed", zero_stage=3),
            train=replace(task.train, micro_batch=smaller[-1]),
        )
        words = f"--engine.name deepspeed --engine.zero_stage 3 --train.micro_batch {smaller[-1]}"
        yield f"{words} --model.activation_checkpointing true", most, machines
    for times in (2, 4, 8, 16, 32, 64, 128):
        other = replace(machines, num_nodes=machines.num_nodes * times)
        try:
            task.train.num_micro(other.num_workers)
        except ConfigError:
            continue
        yield f"--assume {other.num_nodes}x{other.per_node}x{other.name}", task, other


def _divisors(number: int) -> list[int]:
    """Descending."""
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)}, reverse=True)


class _Costs:
    """``train.protocol.Costs`` of a pre-training."""

    assumed = "if no samples share a context"

    def about(self, task: PretrainTask) -> str:
        world = task.target_world
        return f"{world.num_edges:,} edges over {world.num_nodes:,} nodes"

    def worker_bytes(self, task: PretrainTask, num_workers: int) -> float | None:
        if not task.model.kind().planned:
            return None
        shape = Shape.of(task.model, task.target_world)
        micro_batch = task.train.global_batch // (task.train.num_micro(num_workers) * num_workers)
        return memory(shape, Batch.worst(shape, task.objective, micro_batch), task.engine, num_workers).total

    def checkpoint_bytes(self, task: PretrainTask) -> float | None:
        if not task.model.kind().planned:
            return None
        return checkpoint_bytes(Shape.of(task.model, task.target_world).num_parameters, task.engine)

    def smaller(self, task: PretrainTask, num_workers: int) -> str:
        micro_batch = task.train.global_batch // (task.train.num_micro(num_workers) * num_workers)
        ways = [f"--train.micro_batch {max(1, micro_batch // 2)}"]
        if task.engine.name == "deepspeed" and task.engine.zero_stage < 3:
            ways.append(f"--engine.zero_stage {task.engine.zero_stage + 1}")
        return ", or ".join([*ways, "--model.activation_checkpointing true"])

    def planned(self, task: PretrainTask, machines: str, utilisation: float) -> Plan:
        return plan(task, Machines.parse(machines), utilisation)


COSTS = _Costs()
