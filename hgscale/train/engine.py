"""One optimizer step behind one interface: DeepSpeed (the default) or plain torch. The only door to deepspeed.

Both engines keep one contract. ``module(micro_batch)`` returns a scalar that is normalised already, so that its sum
over micro batches and ranks is the loss of the global batch. Gradients are summed over both, clipped by their global
norm, and given to AdamW: the result does not depend on how the global batch was cut.
"""

import argparse
import gc
import io
import json
import logging
import os
import pickle
import re
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hgscale.errors import ConfigError, DataError, RunError
from hgscale.train.config import EngineConfig
from hgscale.train.deepspeed_json import deepspeed_settings

FACTS_FILE = "engine.json"
TAG = "deepspeed"  # the folder that DeepSpeed writes to
UNTRAINED_FILE = "untrained.pt"
_FORCE_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step says of itself, as 0-d tensors: read them when logging, a GPU waits for each reading.

    Attributes:
        loss: this rank's part of the loss; ``reduce_sum`` makes it the loss of the global batch.
        grad_norm: global norm of the gradient before clipping; NaN when it is not finite.
    """

    loss: Tensor
    grad_norm: Tensor


class Engine(ABC):
    """A module, its optimizer, and the workers that share them. Every method is called by every rank.

    Attributes:
        module: what was given to ``make_engine``. Train and eval mode are the caller's to set.
        device: where the module is.
    """

    module: nn.Module
    device: torch.device

    def __init__(self, config: EngineConfig, module: nn.Module, num_micro: int, device: torch.device) -> None:
        self.config, self.module, self.num_micro, self.device = config, module, num_micro, device

    @property
    def rank(self) -> int:
        return dist.get_rank() if dist.is_initialized() else 0

    @property
    def world_size(self) -> int:
        return dist.get_world_size() if dist.is_initialized() else 1

    def reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over ranks, the same on each; the argument is left as it was."""
        total = tensor.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Return once every rank has come here."""
        if self.world_size > 1:
            dist.barrier()

    def step(self, micro_batches: Sequence[Any], learning_rate: float) -> StepResult:
        """One optimizer step on this rank's share of the global batch.

        Args:
            micro_batches: ``num_micro`` arguments for the module.
            learning_rate: of this step, for every parameter without an ``lr_scale`` of its own.
        """
        assert len(micro_batches) == self.num_micro, f"{len(micro_batches)} micro batches for {self.num_micro}"
        return self._step(micro_batches, learning_rate)

    def save(self, directory: Path) -> None:
        """Write model and optimizer state into an existing directory that all ranks see."""
        if self.rank == 0:
            (directory / FACTS_FILE).write_text(json.dumps(self._facts() | {"world_size": self.world_size}))
        self._save(directory)
        self.barrier()

    def load(self, directory: Path) -> None:
        """Take up the state that ``save`` wrote; from then on the run is the uninterrupted one, bit for bit.

        With another number of workers it is so up to the order of sums. What DeepSpeed had shared out among workers
        (ZeRO 1 to 3) is then loaded from what ``convert`` made of it.

        Use a fresh engine (a limit of ZeRO 3). Of pickles, only tensors and a few known classes are read.

        Raises:
            DataError: the directory holds no engine's state, or more than that.
            ConfigError: it was written by another engine, precision or ZeRO stage, or has to be converted.
        """
        written = _read_facts(directory)
        for name, mine in self._facts().items():
            if written.get(name) != mine:
                raise ConfigError(
                    f"{directory}: written with {name}={written.get(name)}, this run has {name}={mine}; "
                    "resume with the former, or start a new run"
                )
        with _tensors_only(directory):
            self._load(directory, written)

    @abstractmethod
    def _step(self, micro_batches: Sequence[Any], learning_rate: float) -> StepResult: ...

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What must agree between the engine that saved and the one that loads."""

    @abstractmethod
    def _save(self, directory: Path) -> None: ...

    @abstractmethod
    def _load(self, directory: Path, written: dict[str, Any]) -> None: ...

    @abstractmethod
    def full_state_dict(self) -> dict[str, Tensor] | None:
        """All weights (the fp32 master weights) and buffers, as copies on the CPU, on rank 0; None elsewhere."""


def make_engine(
    config: EngineConfig, module: nn.Module, *, micro_batch: int, num_micro: int, device: torch.device | str
) -> Engine:
    """An engine around a module, with rank 0's initial weights on every rank.

    With several workers torch.distributed must be initialised (gloo or nccl). With one, the DeepSpeed engine makes a
    process group of its own where there is none.

    Args:
        config: who makes the steps.
        module: fp32; its forward takes one micro batch and returns the normalised loss (see the top of this module). A
            parameter may have an attribute ``lr_scale``, by which its learning rate differs from that of the step.
        micro_batch: samples per forward pass and rank; DeepSpeed only keeps books with it.
        num_micro: forward passes per step and rank.
        device: where to train; the module is moved there.

    Raises:
        ConfigError: for a DeepSpeed JSON that contradicts ``config``, or a device that DeepSpeed does not use here.
    """
    device = torch.device(device)
    # For our other engine as well: transformers loads DeepSpeed to save a model, which would guess, and say so.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    assert all(p.dtype == torch.float32 for p in module.parameters()), "initial weights must be fp32"
    assert any(p.requires_grad for p in module.parameters()), "nothing to train"
    module.to(device)
    if config.name == "torch":
        return _TorchEngine(config, module, num_micro, device)
    return _DeepSpeedEngine(config, module, micro_batch, num_micro, device)


def _make_optimizer(config: EngineConfig, module: nn.Module) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases, norms and embeddings do not, and ``lr_scale`` of a parameter scales its rate."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in (p for p in module.parameters() if p.requires_grad):
        is_plain = parameter.ndim < 2 or id(parameter) in embeddings
        groups.setdefault((is_plain, getattr(parameter, "lr_scale", 1.0)), []).append(parameter)
    # lr is set at each step. Fused is one pass over memory, several times faster than the default also on one CPU core.
    return torch.optim.AdamW(
        [
            {"params": groups[kind], "weight_decay": 0.0 if kind[0] else config.weight_decay, "lr_scale": kind[1]}
            for kind in sorted(groups)
        ],
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def _set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


class _TorchEngine(Engine):
    """Everything on every worker; gradients live in one flat buffer, so that summing and clipping are one call each."""

    def __init__(self, config: EngineConfig, module: nn.Module, num_micro: int, device: torch.device) -> None:
        super().__init__(config, module, num_micro, device)
        if self.world_size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)
        self._optimizer = _make_optimizer(config, module)
        trained = [p for p in module.parameters() if p.requires_grad]
        self._gradient = torch.zeros(sum(p.numel() for p in trained), device=device)
        views = torch.split(self._gradient, [p.numel() for p in trained])
        for parameter, view in zip(trained, views, strict=True):
            parameter.grad = view.view_as(parameter)  # backward adds in place to a gradient that is there

    def _step(self, micro_batches: Sequence[Any], learning_rate: float) -> StepResult:
        self._gradient.zero_()
        total = torch.zeros((), device=self.device)
        for micro_batch in micro_batches:
            with self._autocast():
                loss = self.module(micro_batch)
            loss.backward()
            total += loss.detach()
        if self.world_size > 1:
            dist.all_reduce(self._gradient)
        norm = torch.linalg.vector_norm(self._gradient)
        if self.config.clip_norm:
            # 1e-6 as in torch and DeepSpeed.
            self._gradient *= (self.config.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        _set_learning_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        return StepResult(total, torch.where(norm.isfinite(), norm, torch.nan))

    def _autocast(self) -> Any:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _facts(self) -> dict[str, Any]:
        return {"name": "torch", "precision": self.config.precision}

    def _save(self, directory: Path) -> None:
        if self.rank == 0:
            state = {"module": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, directory / "torch.pt")

    def _load(self, directory: Path, written: dict[str, Any]) -> None:
        state = torch.load(directory / "torch.pt", map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])

    def full_state_dict(self) -> dict[str, Tensor] | None:
        if self.rank != 0:
            return None
        return {name: _on_cpu(tensor) for name, tensor in self.module.state_dict().items()}


def _clear_padding(optimizer: Any, rank: int) -> None:
    """ZeRO 3 fills up the shares of weights that do not divide with memory as it was found, and saves it: use zeros.

    What is in the padding decides nothing. Where another DeepSpeed names its groups otherwise, it is left alone, and
    checkpoints of equal runs differ in bytes that nobody reads.
    """
    groups = getattr(optimizer, "fp16_groups", ())
    flats = getattr(optimizer, "fp32_partitioned_groups_flat", ())
    for weights, flat in zip(groups, flats, strict=len(groups) == len(flats)):
        end = 0
        for weight in weights:
            size = weight.partition_numel()
            end += size
            padding = size - min(max(weight.ds_numel - rank * size, 0), size)
            flat.data[end - padding : end] = 0
            weight.ds_tensor.data[size - padding :] = 0


class _DeepSpeedEngine(Engine):
    """A DeepSpeedEngine with a client AdamW: DeepSpeed's own is compiled on first use."""

    def __init__(
        self, config: EngineConfig, module: nn.Module, micro_batch: int, num_micro: int, device: torch.device
    ) -> None:
        super().__init__(config, module, num_micro, device)
        self._deepspeed = _import_deepspeed(device)
        gc.collect()  # a DeepSpeed engine imports as it is collected: in the midst of an import that breaks Python 3.11
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            exported: Any = dist  # its stubs leave HashStore out
            dist.init_process_group(backend, store=exported.HashStore(), rank=0, world_size=1)
        settings = deepspeed_settings(
            config,
            micro_batch=micro_batch,
            num_micro=num_micro,
            world_size=self.world_size,
            num_parameters=sum(p.numel() for p in module.parameters()),
            on_cpu=device.type == "cpu",
        )
        optimizer = _make_optimizer(config, module)
        self._groups = [list(group["params"]) for group in optimizer.param_groups]  # DeepSpeed puts its own in there
        with redirect_stdout(io.StringIO()):  # some of its chatter is printed, not logged
            self._engine = self._deepspeed.initialize(model=module, optimizer=optimizer, config=settings)[0]
        if config.zero_stage == 3:
            _clear_padding(self._engine.optimizer, self.rank)

    def _step(self, micro_batches: Sequence[Any], learning_rate: float) -> StepResult:
        _set_learning_rate(self._engine.optimizer, learning_rate)
        total = torch.zeros((), device=self.device)
        norm: Any = None
        for index, micro_batch in enumerate(micro_batches):
            loss = self._engine(micro_batch)
            # DeepSpeed averages over micro batches and ranks, where the sum is wanted.
            self._engine.backward(loss * (self.num_micro * self.world_size))
            if self.config.zero_stage == 0 and index == self.num_micro - 1:
                norm = self._clip()
            self._engine.step()
            total += loss.detach()
        if norm is None:
            norm = torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)
        # ZeRO writes -1 for a norm that is not finite.
        return StepResult(total, torch.where(norm.isfinite() & (norm >= 0), norm, torch.nan))

    def _clip(self) -> Tensor:
        """Clip as torch does: without ZeRO, DeepSpeed's own clipping is slower and does not tell the norm."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        return nn.utils.clip_grad_norm_(trained, self.config.clip_norm or float("inf"))

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in ("name", "zero_stage", "precision")}

    def _save(self, directory: Path) -> None:
        self._engine.save_checkpoint(str(directory), tag=TAG, save_latest=False)

    def _load(self, directory: Path, written: dict[str, Any]) -> None:
        if written.get("universal"):
            self._load_universal(directory)
        elif self.config.zero_stage > 0 and written.get("world_size") != self.world_size:
            raise ConfigError(
                f"{directory}: ZeRO {self.config.zero_stage} shared it out among {written.get('world_size')} workers, "
                f"now there are {self.world_size}; let hgscale.train.resize.prepare convert it before any worker starts"
            )
        else:
            self._load_files(directory)

    def _load_files(self, directory: Path) -> None:
        with redirect_stdout(io.StringIO()), _plain_path(directory) as plain:
            path, _ = self._engine.load_checkpoint(plain, tag=TAG)
        if path is None:
            raise DataError(f"{directory}: DeepSpeed found nothing to load in it; resume from another checkpoint")

    def _load_universal(self, directory: Path) -> None:
        """Load what ``convert`` wrote, and put right what DeepSpeed 0.19 leaves wrong when it loads that."""
        self._refuse_empty_shares()
        optimizer = self._engine.optimizer
        hyperparameters = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        with _loading_universal(self._engine):
            self._load_files(directory)
        # Stage 3 gives all groups the hyperparameters of the first, so that everything would decay.
        for group, wanted in zip(optimizer.param_groups, hyperparameters, strict=True):
            group.update(wanted)
        # Stage 3 gives all groups one and the same counter, which each would move on; and fused AdamW on a GPU wants
        # it there.
        for parameter, state in optimizer.state.items():
            state["step"] = state["step"].to(parameter.device, copy=True)
        self._load_untrained(directory)

    def _refuse_empty_shares(self) -> None:
        """At stages 1 and 2 DeepSpeed cannot load where a worker's share of a parameter group is only padding."""
        shares = [any(getattr(p, "_hp_mapping", self) is not None for p in group) for group in self._groups]
        held = self.reduce_sum(torch.tensor(shares, dtype=torch.int64, device=self.device)).tolist()
        for group, num_holders in zip(self._groups, held, strict=True):
            if num_holders < self.world_size:
                raise ConfigError(
                    f"cluster.num_workers={self.world_size}: {sum(p.numel() for p in group)} parameters of one kind "
                    f"are too few to be shared out; resume with {num_holders} workers or fewer"
                )

    def _load_untrained(self, directory: Path) -> None:
        """Buffers and frozen parameters, which are not in DeepSpeed's universal form."""
        state = self.module.state_dict(keep_vars=True)
        for name, tensor in torch.load(directory / UNTRAINED_FILE, weights_only=True).items():
            mine = state[name]
            shared_out = self.config.zero_stage == 3 and isinstance(mine, nn.Parameter)
            with torch.no_grad(), self._deepspeed.zero.GatheredParameters([mine], modifier_rank=0, enabled=shared_out):
                if self.rank == 0 or not shared_out:
                    mine.copy_(tensor)

    def full_state_dict(self) -> dict[str, Tensor] | None:
        weights: dict[str, Tensor] = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():  # keep_vars: parameters, not copies of them
            full = self._full_tensor(tensor)  # collective: every rank takes part, one tensor at a time
            if self.rank == 0:
                weights[name] = _on_cpu(full)
        return weights if self.rank == 0 else None

    def _full_tensor(self, tensor: Tensor) -> Tensor:
        """A buffer as it is; a frozen parameter gathered; a trained one put together from its fp32 master."""
        if not isinstance(tensor, nn.Parameter) or self.config.zero_stage == 0:
            return tensor
        if tensor.requires_grad:
            full: Tensor = self._deepspeed.utils.safe_get_full_fp32_param(tensor)
            return full
        with self._deepspeed.zero.GatheredParameters([tensor], enabled=self.config.zero_stage == 3):
            return tensor.detach().clone()


@contextmanager
def _loading_universal(engine: Any) -> Iterator[None]:
    """While this lasts, a DeepSpeed engine takes what it loads for a universal checkpoint.

    The key checkpoint.load_universal would say so when the engine is made, before it is known what will be loaded;
    DeepSpeed asks this method only while loading.

    Raises:
        RunError: if this DeepSpeed has no such method.
    """
    if not callable(getattr(engine, "load_universal_checkpoint", None)):
        raise RunError(
            f"DeepSpeed {version('deepspeed')} has no DeepSpeedEngine.load_universal_checkpoint, by which a run goes "
            "on with another number of workers; install deepspeed 0.19, or go on with as many workers as before"
        )
    engine.load_universal_checkpoint = lambda: True
    try:
        yield
    finally:
        del engine.load_universal_checkpoint  # the class has its own


def _on_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU, floats as fp32."""
    return tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def is_shared_out(directory: Path) -> bool:
    """Whether each worker saved only its share there, so that another number of workers needs ``convert`` first."""
    written = _read_facts(directory)
    return written.get("name") == "deepspeed" and written.get("zero_stage", 0) > 0


def convert(directory: Path, target: Path, device: torch.device | str = "cpu") -> None:
    """Make of what ZeRO 1 to 3 saved a form that any number of workers can load: DeepSpeed's universal checkpoint.

    Args:
        directory: what ``Engine.save`` wrote, known to be whole.
        target: an empty directory. For one process.
        device: what this process trains on, if it does: DeepSpeed asks once in a process.

    Raises:
        ConfigError: the optimizer's state was offloaded to NVMe, of which DeepSpeed makes no such form.
        DataError: DeepSpeed made too little of it, or the files hold more than an engine's state.
    """
    if (directory / TAG / "offloaded_tensors").exists():
        raise ConfigError(
            f"{directory}: with the optimizer's state on NVMe (engine.deepspeed_config) the number of workers cannot "
            f"change; set cluster.num_workers={_read_facts(directory)['world_size']}, or offload to cpu"
        )
    _import_deepspeed(torch.device(device))
    from deepspeed.checkpoint import ds_to_universal

    options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
    options |= {"strict": True, "inject_missing_state": True}
    with _tensors_only(directory):
        with _plain_path(directory) as here, _plain_path(target) as there:
            folders = {"input_folder": f"{here}/{TAG}", "output_folder": f"{there}/{TAG}"}
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it reports its progress on both
                ds_to_universal.main(argparse.Namespace(**folders, **options))
        states = [torch.load(path, map_location="cpu") for path in _model_states(directory)]
    for name in (name for group in states[0]["param_shapes"] for name in group):
        for part in ("fp32", "exp_avg", "exp_avg_sq"):
            if not (target / TAG / "zero" / name / f"{part}.pt").is_file():
                raise DataError(
                    f"{directory}: DeepSpeed found no {part} of {name} in it; go on with {len(states)} workers"
                )
    torch.save(_untrained(states), target / UNTRAINED_FILE)
    (target / FACTS_FILE).write_text(json.dumps(_read_facts(directory) | {"universal": True}))


@contextmanager
def _plain_path(directory: Path) -> Iterator[str]:
    """Another path of a directory, without brackets and such: DeepSpeed takes paths for patterns when it reads."""
    with TemporaryDirectory() as folder:
        link = Path(folder, "link")
        link.symlink_to(directory.resolve())
        yield str(link)


def _model_states(directory: Path) -> list[Path]:
    """Where DeepSpeed saved weights: one file, or at stage 3 one of each worker, in their order."""
    paths = (directory / TAG).glob("*_model_states.pt")
    return sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def _untrained(states: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Buffers and frozen parameters, from what is in ``_model_states``."""
    first = states[0]
    trained = {name for group in first["param_shapes"] for name in group}
    fragments = [state["frozen_param_fragments"] or {} for state in states]
    untrained = {}
    for name, tensor in first["module"].items():
        if name in trained or name in first["shared_params"]:
            continue
        if name in fragments[0]:  # padded at the end to as much for each worker
            shape = first["frozen_param_shapes"][name]
            tensor = torch.cat([fragment[name].flatten() for fragment in fragments])[: shape.numel()].view(shape)
        untrained[name] = tensor
    return untrained


def _read_facts(directory: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((directory / FACTS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{directory}: no readable {FACTS_FILE}: {error}; give what Engine.save wrote") from None
    return facts


@contextmanager
def _tensors_only(directory: Path) -> Iterator[None]:
    """While this lasts torch.load, wherever it is called, reads tensors and the classes named here: no other pickle.

    DeepSpeed asks for all of pickle. torch has this variable to overrule that.

    Raises:
        DataError: if a file that is loaded meanwhile holds anything else.
    """
    classes: list[Any] = []
    if "deepspeed" in sys.modules:
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        def member(kind: type, name: str) -> ZeroStageEnum:
            if kind != ZeroStageEnum or name not in ZeroStageEnum.__members__:
                raise pickle.UnpicklingError("GLOBAL builtins.getattr")
            return ZeroStageEnum.__members__[name]

        # Up to Python 3.11.3 a member of an enumeration is pickled as getattr(kind, name).
        classes = [LossScaler, ZeroStageEnum, fragment_address, (member, "builtins.getattr")]
    before = os.environ.get(_FORCE_TENSORS)
    os.environ[_FORCE_TENSORS] = "1"
    try:
        with torch.serialization.safe_globals(classes):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL \S+", str(error))
        what = f"{found[0]}, which might run anything" if found else str(error).splitlines()[0]
        raise DataError(
            f"{directory}: a file holds {what}, and is not loaded; go on from a checkpoint that hgscale wrote"
        ) from None
    finally:
        if before is None:
            del os.environ[_FORCE_TENSORS]
        else:
            os.environ[_FORCE_TENSORS] = before


def _import_deepspeed(device: torch.device) -> ModuleType:
    """DeepSpeed, told where it is: it reads that from the environment.

    Raises:
        ConfigError: when it was imported for another kind of device before.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_SIZE", "1")  # Ray does not set it; without it each initialize asks numactl
    if device.type == "cuda":  # DeepSpeed takes the GPU of this number
        os.environ["LOCAL_RANK"] = str(torch.cuda.current_device() if device.index is None else device.index)
    os.environ.setdefault("LOCAL_RANK", "0")
    with _hidden("mlflow"):  # its autotuner, unused here, would load it, and pandas: 90 MB in every worker
        import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # it calls such
    found = deepspeed.accelerator.get_accelerator().device_name()
    if found != device.type:
        raise ConfigError(
            f"device={device}: DeepSpeed was started for {found} in this process; "
            f"start another process, with DS_ACCELERATOR={device.type}"
        )
    # Else the first initialize on a CPU compiles C++ for half a minute, or fails without a compiler; gloo does as well.
    # A private name, tested in test_engine: where it is gone, DeepSpeed is slower to start, no more.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if device.type == "cpu" and isinstance(compatible, dict):
        compatible["deepspeed_shm_comm"] = False
    loaded: ModuleType = deepspeed
    return loaded


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """While this lasts, importing a package that is not loaded yet fails as if it were not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
