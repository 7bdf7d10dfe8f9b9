"""A training goes on with 2, 1, 2 and 4 workers as with any fixed number. Workers are this file run as a script.

The script forks them, since importing DeepSpeed would be most of their time.
"""

import copyreg
import gc
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hgscale.errors import ConfigError, DataError
from hgscale.train import checkpoint, resize
from hgscale.train.config import EngineConfig
from hgscale.train.engine import Engine, make_engine
from hgscale.train.engine import convert as convert_files
from tests.unit.train.test_engine import (
    CASES,
    COMMON,
    GLOBAL_BATCH,
    LR_SCALE,
    NUM_MICRO,
    TOLERANCE,
    TOLERANCE_BF16,
    Toy,
    assert_equal_weights,
    plain_loop,
    train,
)

# Workers, and the steps that so many make.
PHASES = ((2, range(0, 2)), (1, range(2, 3)), (2, range(3, 4)), (4, range(4, 5)))
SHARED_OUT = [case for case in CASES if case[:5] in ("zero1", "zero2", "zero3")]
FP32 = [case for case in CASES if "bf16" not in case]
BF16 = [case for case in CASES if "bf16" in case]


# The workers: `python test_resize.py FOLDER CASE...`


def build(case: str, world_size: int, phase: int) -> Engine:
    """An engine whose weights, frozen weights and buffers are wrong after the first phase, until it loads."""
    toy = Toy(seed=7 + phase)
    if phase:
        toy.scale.fill_(phase)
    config = EngineConfig(**COMMON, **CASES[case])
    micro_batch = GLOBAL_BATCH // world_size // NUM_MICRO
    return make_engine(config, toy, micro_batch=micro_batch, num_micro=NUM_MICRO, device="cpu")


def state_of(engine: Engine) -> dict[str, Any]:
    """All that an optimizer step depends on, put together from all workers where it is shared out."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    optimizer = engine._engine.optimizer if engine.config.name == "deepspeed" else engine._optimizer  # type: ignore[attr-defined]
    state: dict[str, Any] = {
        "steps": [float(state["step"]) for state in optimizer.state.values()],
        "decays": [group["weight_decay"] for group in optimizer.param_groups],
        "lr_scales": [group["lr_scale"] for group in optimizer.param_groups],
    }
    shared_out = engine.config.name == "deepspeed" and engine.config.zero_stage
    if shared_out in (1, 2):  # DeepSpeed links what it reads here after the step of the first group, too early
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()
    for name, p in engine.module.named_parameters():
        if p.requires_grad:
            for part in ("exp_avg", "exp_avg_sq"):
                whole = safe_get_full_optimizer_state(p, part) if shared_out else optimizer.state[p][part]
                state[f"{name} {part}"] = whole.clone()
            state[name] = safe_get_full_fp32_param(p).clone() if shared_out else p.detach().clone()
    return state


def work(rank: int, world_size: int, folder: Path, case: str, phase: int) -> None:
    """One worker of one phase: load, train, save."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{case}-{phase}"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    root, steps = folder / case / "checkpoints", PHASES[phase][1]
    engine = build(case, world_size, phase)
    found, complaints = checkpoint.find(root, "aa11", world_size)
    assert complaints == []
    outcome: dict[str, Any] = {"step": None, "state loaded": None}
    if found is not None:
        engine.load(found.path)
        outcome |= {"step": found.step, "path": found.path.name, "state loaded": state_of(engine)}
    outcome |= train(engine, steps) | {"state saved": state_of(engine)}
    facts = {"fingerprint": "aa11", "world_size": world_size}
    checkpoint.write(root, steps.stop, facts, engine.save, rank=rank, barrier=engine.barrier)
    if rank == 0:
        torch.save(outcome, folder / f"outcome-{case}-{phase}.pt")


def convert(root: Path, world_size: int) -> None:
    """The one process before the workers."""
    assert resize.prepare(root, "aa11", world_size) == (root.parent.name in SHARED_OUT)
    assert not resize.prepare(root, "aa11", world_size)
    for path in sorted(root.glob("*.universal/**/fp32.pt"))[-1:]:
        flip(path, 40)
        assert resize.prepare(root, "aa11", world_size)


def interrupt(root: Path, world_size: int, outcome: Path, last: int) -> None:
    """Convert, and be killed where the process touches its files for the nth time. Notes how often it did."""
    touched = 0

    def die(event: str, _: object) -> None:
        nonlocal touched
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            touched += 1
            if touched == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    resize.prepare(root, "aa11", world_size)
    outcome.write_text(str(touched))


def interruptions(root: Path, world_size: int, outcome: Path) -> None:
    """Kill conversions at several places, and note after each what is left. All of it is left to be found."""
    trials = outcome.parent / "trials"
    shutil.copytree(root, trials / "whole")
    fork((interrupt, trials / "whole", world_size, outcome, 0))
    num_touched = int(outcome.read_text())
    left = []
    # The last ones are the commit: the rename of the directory, and that of the manifest.
    places = [num_touched * part // 4 for part in (1, 2, 3)] + list(range(num_touched - 4, num_touched + 1))
    for place in places:
        shutil.copytree(root, trials / str(place))
    for place in places:
        trial = trials / str(place)
        fork((interrupt, trial, world_size, outcome, place), exit_code=-signal.SIGKILL)
        found, complaints = checkpoint.newest(trial, "aa11")
        assert found is not None
        names = [path.name for path in trial.iterdir() if path.name != "step-00000002"]
        left.append((found.step, complaints, checkpoint.universal_form(found) is not None, names))
        if not left[-1][2]:
            for name in names:
                shutil.copytree(trial / name, root / name, dirs_exist_ok=True)
            assert [path.name for path in checkpoint.sweep(trial)] == names
    torch.save(left, outcome)


def refuse(folder: Path, case: str) -> None:
    """A worker that is given what it must not load: it says why."""
    said = []
    store = dist.FileStore(str(folder / f"store-refuse-{case}"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    saved = folder / f"refuse-{case}"
    saved.mkdir()
    build(case, 1, 0).save(saved)
    for path in saved.rglob("*.pt"):
        whole = path.read_bytes()
        torch.save({"module": Payload(str(folder / "was here"))}, path)
        try:
            build(case, 1, 0).load(saved)
        except DataError as error:
            said.append(str(error))
        path.write_bytes(whole)
    torch.save(said, folder / f"refused-{case}.pt")


def from_an_older_python(folder: Path, case: str) -> None:
    """A worker on a Python up to 3.11.3, as far as pickles can tell; then a getattr that no such Python writes."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    copyreg.pickle(ZeroStageEnum, lambda member: (getattr, (ZeroStageEnum, member.name)))
    store = dist.FileStore(str(folder / f"store-older-{case}"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    saved = folder / f"older-{case}"
    saved.mkdir()
    engine = build(case, 1, 0)
    train(engine, range(2))
    engine.save(saved)
    assert any(b"getattr" in path.read_bytes() for path in saved.rglob("*.pt"))
    again = build(case, 1, 0)
    again.load(saved)
    copyreg.pickle(LossScaler, lambda _: (getattr, (LossScaler, "__init__")))
    for path in saved.rglob("*.pt"):
        torch.save({"module": LossScaler(1.0)}, path)
    try:
        build(case, 1, 0).load(saved)
    except DataError as error:
        torch.save((state_of(engine), state_of(again), str(error)), folder / f"older-{case}.pt")


class Payload:
    """What a stranger would put into a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


class Few(nn.Module):
    """So few parameters that the second of two workers holds none of them at stages 1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x).sum()


def few(rank: int, world_size: int, folder: Path, stage: int) -> None:
    """Train so few, save, and load with another number of workers."""
    store = dist.FileStore(str(folder / f"store-few-{stage}-{world_size}"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    config = EngineConfig(zero_stage=stage)  # type: ignore[arg-type]
    engine = make_engine(config, Few(), micro_batch=1, num_micro=1, device="cpu")
    root, said = folder / f"few-{stage}", "loaded"
    found, _ = checkpoint.find(root, "aa11", world_size)
    try:
        if found is not None:
            engine.load(found.path)
    except ConfigError as error:
        said = str(error)
    engine.step([torch.ones(1, 2)], 0.1)
    facts = {"fingerprint": "aa11", "world_size": world_size}
    checkpoint.write(root, world_size, facts, engine.save, rank=rank, barrier=engine.barrier)
    (folder / f"few-{stage}-{rank}.txt").write_text(said)


def fork(*calls: tuple[Any, ...], exit_code: int = 0) -> None:
    """Run functions in a process each."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=function, args=arguments) for function, *arguments in calls]
    for process in processes:
        process.start()
    try:
        for process in reversed(processes):
            process.join(120)
            assert process.exitcode == exit_code, process
    finally:
        for process in processes:
            process.kill()


def main(folder: Path, cases: list[str]) -> None:
    from hgscale.train.engine import _import_deepspeed

    _import_deepspeed(torch.device("cpu"))
    for name in ("torch._inductor.compile_fx", "torch._inductor.kernel.bmm", "torch.distributed.tensor"):
        with suppress(ImportError):  # else DeepSpeed imports them in each worker, which takes longer than its work
            importlib.import_module(name)
    gc.freeze()
    for case in cases:
        for phase, (world_size, _) in enumerate(PHASES):
            root = folder / case / "checkpoints"
            if phase == 1 and case == "zero2":
                interruptions(root, world_size, folder / "interrupted.pt")
            if phase:
                fork((convert, root, world_size))
            fork(*((work, rank, world_size, folder, case, phase) for rank in range(world_size)))
    if cases == FP32:
        for case in ("torch", "zero1", "zero3"):
            fork((refuse, folder, case))
        for case in ("zero1", "zero3"):
            fork((from_an_older_python, folder, case))
        for stage in (1, 3):
            fork((few, 0, 1, folder, stage))
            fork((resize.prepare, folder / f"few-{stage}", "aa11", 2))
            fork(*((few, rank, 2, folder, stage) for rank in (0, 1)))


# The tests.


def run(folder: Path, repo_root: Path, cases: list[str]) -> dict[str, list[dict[str, Any]]]:
    environment = os.environ | {"PYTHONPATH": str(repo_root)}
    command = [sys.executable, __file__, str(folder), *cases]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    assert outcome.stdout + outcome.stderr == "", "the workers and the conversion say nothing"
    return {case: [torch.load(folder / f"outcome-{case}-{phase}.pt") for phase in range(len(PHASES))] for case in cases}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what DeepSpeed, which takes paths for patterns, would stumble over."""
    folder = tmp_path_factory.mktemp("runs") / "a [1] (b) +c"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    return plain_loop()


@pytest.fixture(scope="module")
def outcomes(folder: Path, repo_root: Path) -> dict[str, list[dict[str, Any]]]:
    return run(folder, repo_root, FP32)


@pytest.mark.parametrize("case", FP32)
def test_losses_and_weights_are_those_of_a_plain_loop_whatever_the_number_of_workers(
    outcomes: dict[str, list[dict[str, Any]]], oracle: dict[str, Any], case: str
) -> None:
    losses = [loss for outcome in outcomes[case] for loss in outcome["losses"]]
    assert losses == pytest.approx(oracle["losses"], rel=TOLERANCE)
    assert_equal_weights(outcomes[case][-1]["weights"], oracle["weights"], TOLERANCE)


def assert_state_moved(phases: list[dict[str, Any]]) -> None:
    for before, after, (_, steps) in zip(phases, phases[1:], PHASES[1:], strict=False):
        saved, loaded = before["state saved"], after["state loaded"]
        assert after["step"] == steps.start
        assert list(saved) == list(loaded)
        for name in saved:
            if isinstance(saved[name], Tensor):
                torch.testing.assert_close(loaded[name], saved[name], rtol=0, atol=0, msg=name)
        assert set(loaded["steps"]) == {float(steps.start)}
        assert loaded["decays"] == [COMMON["weight_decay"], 0.0, 0.0]
        assert loaded["lr_scales"] == [1.0, LR_SCALE, 1.0]


@pytest.mark.parametrize("case", FP32)
def test_weights_moments_step_counts_and_decays_move_to_other_workers_bit_for_bit(
    outcomes: dict[str, list[dict[str, Any]]], case: str
) -> None:
    assert_state_moved(outcomes[case])


@pytest.mark.parametrize("case", FP32)
def test_only_what_was_shared_out_is_converted(outcomes: dict[str, list[dict[str, Any]]], case: str) -> None:
    ending = ".universal" if case in SHARED_OUT else ""
    assert [outcome["path"] for outcome in outcomes[case][1:]] == [f"step-{step:08d}{ending}" for step in (2, 3, 4)]


@pytest.mark.parametrize("case", FP32)
def test_a_universal_form_goes_with_its_checkpoint(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path, case: str
) -> None:
    kept = ["step-00000004", "step-00000005"] + ["step-00000004.universal"] * (case in SHARED_OUT)
    assert sorted(path.name for path in (folder / case / "checkpoints").iterdir()) == sorted(kept)


@pytest.mark.slow
def test_bf16_goes_on_with_other_workers_up_to_its_rounding(tmp_path: Path, repo_root: Path) -> None:
    oracle = plain_loop()
    for phases in run(tmp_path, repo_root, BF16).values():
        losses = [loss for outcome in phases for loss in outcome["losses"]]
        assert losses == pytest.approx(oracle["losses"], rel=TOLERANCE_BF16)
        assert_state_moved(phases)


def test_a_conversion_that_is_killed_leaves_the_checkpoint_and_nothing_that_counts(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    left = torch.load(folder / "interrupted.pt")
    assert all(outcome[:2] == (2, []) for outcome in left)
    before_the_rename, after_it = [".step-00000002.universal.part"], ["step-00000002.universal"]
    assert [outcome[3] for outcome in left] == [before_the_rename] * 4 + [after_it] * 4
    assert [outcome[2] for outcome in left] == [False] * 7 + [True]  # the last kill came after the manifest


def test_a_pickle_that_would_run_something_is_refused_and_not_run(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    for case, num_files in (("torch", 1), ("zero1", 2), ("zero3", 2)):
        said = torch.load(folder / f"refused-{case}.pt")
        assert len(said) == num_files
        for line in said:
            assert (
                f"refuse-{case}: a file holds GLOBAL posix.mkdir, which might run anything, and is not loaded" in line
            )
    assert not (folder / "was here").exists()


@pytest.mark.parametrize("case", ["zero1", "zero3"])
def test_checkpoints_go_on_whatever_python_wrote_them_and_only_members_of_enumerations_are_named(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path, case: str
) -> None:
    saved, loaded, refusal = torch.load(folder / f"older-{case}.pt")
    assert list(saved) == list(loaded)
    for name in saved:
        if isinstance(saved[name], Tensor):
            torch.testing.assert_close(loaded[name], saved[name], rtol=0, atol=0, msg=name)
    assert f"older-{case}: a file holds GLOBAL builtins.getattr, which might run anything" in refusal


def test_parameters_too_few_to_be_shared_out_are_refused_by_every_worker_where_deepspeed_fails(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    for rank in (0, 1):
        said = (folder / f"few-1-{rank}.txt").read_text()
        assert said.startswith("cluster.num_workers=2: 2 parameters of one kind are too few to be shared out; resume")
        assert (folder / f"few-3-{rank}.txt").read_text() == "loaded"


def test_a_state_on_nvme_is_refused(outcomes: dict[str, list[dict[str, Any]]], folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    shutil.copytree(folder / "zero2" / "checkpoints" / "step-00000005", saved)
    (saved / "deepspeed" / "offloaded_tensors").mkdir()  # as DeepSpeed does; it needs libaio to get that far
    with pytest.raises(ConfigError, match=r"saved: .* on NVMe .* set cluster\.num_workers=4, or"):
        convert_files(saved, tmp_path / "universal")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << place % 8
    path.write_bytes(bytes(data))


def flip_somewhere(path: Path) -> None:
    flip(path, random.Random(path.name).randrange(path.stat().st_size))


def lose_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_somewhere, lose_a_byte, Path.unlink])
@pytest.mark.parametrize("case", FP32)
def test_damage_to_any_file_of_a_checkpoint_is_found(
    outcomes: dict[str, list[dict[str, Any]]],
    folder: Path,
    tmp_path: Path,
    case: str,
    damage: Callable[[Path], object],
) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(folder / case / "checkpoints", root)
    paths = [path for path in sorted((root / "step-00000005").rglob("*")) if path.is_file()]
    assert len(paths) >= (7 if case in SHARED_OUT else 3)  # weights and optimizer of 4 workers, facts, manifest
    for path in paths:
        whole = path.read_bytes()
        damage(path)
        found, complaints = checkpoint.newest(root, "aa11")
        assert found is not None, path
        assert found.step == 4, path
        assert len(complaints) == 1
        path.write_bytes(whole)
    found, complaints = checkpoint.newest(root, "aa11")
    assert (found is not None and found.step, complaints) == (5, [])


@pytest.mark.parametrize("damage", [flip_somewhere, lose_a_byte, Path.unlink])
@pytest.mark.parametrize("case", ["zero2", "zero3"])
def test_damage_to_any_file_of_a_universal_form_is_found(
    outcomes: dict[str, list[dict[str, Any]]],
    folder: Path,
    tmp_path: Path,
    case: str,
    damage: Callable[[Path], object],
) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(folder / case / "checkpoints", root)
    shutil.rmtree(root / "step-00000005")
    found, _ = checkpoint.newest(root, "aa11")
    assert found is not None
    form = root / "step-00000004.universal"
    for path in [path for path in sorted(form.rglob("*")) if path.is_file()]:
        whole = path.read_bytes()
        damage(path)
        assert checkpoint.universal_form(found) is None, path
        path.write_bytes(whole)
    assert checkpoint.universal_form(found) == form
    manifest = form / "manifest.json"
    manifest.write_text(manifest.read_text().replace(found.sha256, "0" * 64))
    assert checkpoint.sweep(root) == [form]


def test_a_flip_of_any_byte_of_a_manifest_is_found(
    outcomes: dict[str, list[dict[str, Any]]], folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(folder / "torch" / "checkpoints", root)
    manifest = root / "step-00000005" / "manifest.json"
    assert sorted(json.loads(manifest.read_text())["content"]["files"]) == ["engine.json", "torch.pt"]
    whole = manifest.read_bytes()
    shutil.rmtree(root / "step-00000004")
    for place in range(len(whole)):
        flip(manifest, place)
        assert checkpoint.newest(root, "aa11")[0] is None, place
        manifest.write_bytes(whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
