"""One run from its directory to its end: attempts at its work, a progress bar, and one MLflow run, whatever happens."""

import functools
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hgscale import config as configs
from hgscale.cluster.attempts import Work, run_work
from hgscale.cluster.progress import Progress, of_training, say_attempt, show_records
from hgscale.cluster.signals import stop_on_signal
from hgscale.cluster.workers import Beside, ClusterConfig
from hgscale.errors import ConfigError, HgscaleError
from hgscale.files import held, write_json, write_text
from hgscale.plugins import imported
from hgscale.tracking import DataInput, Tracker, TrackingConfig
from hgscale.train import checkpoint
from hgscale.train.config import TrainConfig
from hgscale.train.runlog import Offset, read_new

POLL_S = 1.0


class RunConfig(Protocol):
    """What the config of a training says besides its task."""

    @property
    def cluster(self) -> ClusterConfig:
        """Where it is computed."""

    @property
    def tracking(self) -> TrackingConfig:
        """Where it is remembered."""

    @property
    def train(self) -> TrainConfig:
        """How long."""

    @property
    def run_dir(self) -> str | None:
        """Its directory; None: named by verb and fingerprint."""


@dataclass(frozen=True)
class Run:
    """What is to be run, and what is to be said and remembered of it.

    Attributes:
        verb: that the user called.
        config: resolved, its paths absolute, so that the run can be read from anywhere: becomes ``config.yaml``.
        fingerprint: of what decides its numbers.
        work: import path of what each worker calls, a ``train.protocol.TrainWorker``, with ``arguments``, ``run_dir``
            and ``attempt``. It is loaded in the workers, and not by who only starts them.
        arguments: picklable.
        sizes: numbers of workers that can do it, ascending.
        beside: what the workers use besides themselves.
        data: what it is trained on.
        tags: of the MLflow run, beside the verb and the directory.
        artifacts: files of the run directory, beside figures, that MLflow keeps, where they are there.
        figures: the same of figures, which the user is told of.
        headline: what is about to happen.
        told: what the summary says, in lines for a terminal.
    """

    verb: str
    config: RunConfig
    fingerprint: str
    work: str
    arguments: dict[str, Any]
    sizes: Sequence[int]
    beside: Beside
    data: DataInput
    tags: dict[str, str]
    artifacts: Sequence[str]
    figures: Sequence[str]
    headline: str
    told: Callable[[Mapping[str, Any]], str]

    @property
    def run_dir(self) -> Path:
        """Where it lives: the config's ``run_dir``, else named by verb and fingerprint."""
        given = self.config.run_dir
        return (Path(given) if given else configs.runs_home() / f"{self.verb}-{self.fingerprint}").absolute()


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        summary: ``summary.json`` as a dict.
        run_dir: its directory.
        figures: what is drawn in it.
        mlflow_run_id: None where it is not tracked.
        how_to_open: the run in MLflow.
        told: what the summary says, in lines for a terminal.
    """

    summary: dict[str, Any]
    run_dir: Path
    figures: tuple[Path, ...]
    mlflow_run_id: str | None
    how_to_open: str
    told: str

    def text(self) -> str:
        """What the command prints."""
        lines = [self.told, f"run           {self.run_dir}"]
        if self.figures:
            lines.append(f"figure{'s' * (len(self.figures) > 1):7} {', '.join(map(str, self.figures))}")
        return "\n".join([*lines, f"mlflow        {self.how_to_open}"])


def carry_out(run: Run) -> RunResult:
    """Run to the end, from wherever an earlier attempt left it. A finished run is not repeated.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        RunError: if the run failed; the newest checkpoint stays, and the MLflow run ends FAILED.
    """
    run_dir = run.run_dir
    with _claimed(run_dir, run.fingerprint) as is_new:
        try:
            tracker = _start_tracking(run, run_dir)
        except HgscaleError:
            if is_new:
                shutil.rmtree(run_dir)
            raise
        write_text(run_dir / "config.yaml", configs.yaml_text(run.config))
        status = "FAILED"
        try:
            with _following(run, run_dir, tracker) as progress, stop_on_signal():
                if not (run_dir / "summary.json").exists():
                    run_work(_work(run, run_dir), run.config.cluster, progress.say)
            summary = json.loads((run_dir / "summary.json").read_text())
            tracker.log_final(summary)
            drawn = tuple(run_dir / name for name in run.figures if (run_dir / name).exists())
            for path in [*(run_dir / name for name in run.artifacts if (run_dir / name).exists()), *drawn]:
                tracker.log_artifact(path)
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)  # type: ignore[arg-type]
    return RunResult(summary, run_dir, drawn, tracker.run_id, tracker.how_to_open(), run.told(summary))


def _work(run: Run, run_dir: Path) -> Work:
    """The run as work for a group of workers."""
    checkpoints = run_dir / "checkpoints"
    converts_on = run.config.cluster.device if run.config.cluster.launcher == "none" else "cpu"  # Ray gives it no GPU
    return Work(
        function=functools.partial(_call, run.work),
        arguments=run.arguments | {"run_dir": run_dir},
        run_dir=run_dir,
        sizes=run.sizes,
        prepare=functools.partial(_prepare, checkpoints, run.fingerprint, converts_on),
        progress=functools.partial(checkpoint.newest_step, checkpoints),
        beside=run.beside,
    )


def _call(work: str, **arguments: Any) -> None:
    """In a worker."""
    imported(work, "work")(**arguments)


def _prepare(checkpoints: Path, fingerprint: str, device: str, num_workers: int) -> None:
    """Before the workers start, in one process: see that so many can load the newest checkpoint."""
    from hgscale.train.resize import prepare

    prepare(checkpoints, fingerprint, num_workers, device)


@contextmanager
def _claimed(run_dir: Path, fingerprint: str) -> Iterator[bool]:
    """Make the run directory, or find in it an earlier attempt at the same run, and hold it; gives whether it is new.

    On storage without locks the numbers of attempts keep two from mixing.

    Raises:
        ConfigError: if it cannot be written, belongs to another run, or is held by another process.
    """
    busy = f"run_dir={run_dir}: the run is going on in another process; wait for it, or end it first"
    with held(run_dir, lambda why: _unwritable(run_dir, why), busy):
        is_new = all(path.name == "lock" or path.suffix == ".part" for path in run_dir.iterdir())
        mark = run_dir / "fingerprint"
        earlier = mark.read_text().strip() if mark.exists() else fingerprint if is_new else None
        if earlier is None:
            (run_dir / "lock").unlink()
            raise ConfigError(f"run_dir={run_dir}: holds files that are no run's; name a new or empty directory")
        if earlier != fingerprint:
            raise ConfigError(
                f"run_dir={run_dir}: belongs to run {earlier}, this config is {fingerprint}; "
                "a field or a plug-in's source differs; use another run_dir, or both as they were (config.yaml in it), "
                "or `hgscale recover` for another read-out or estimator"
            )
        if not mark.exists():
            write_text(mark, fingerprint + "\n")
        yield is_new


def _unwritable(run_dir: Path, why: str) -> ConfigError:
    return ConfigError(f"run_dir={run_dir}: cannot be written ({why}); name a directory you can write to")


def _start_tracking(run: Run, run_dir: Path) -> Tracker:
    """Create this training's MLflow run, or re-open the one of its earlier attempts."""
    note = run_dir / "tracking.json"
    earlier = json.loads(note.read_text())["run_id"] if note.exists() else None
    # Where a run is remembered is not part of what it is, and an address may hold a password.
    sections = {name: value for name, value in configs.to_dict(run.config).items() if name != "tracking"}
    tracker = Tracker.start(
        run.config.tracking,
        fingerprint=run.fingerprint,
        name=run_dir.name,
        params={name: str(value) for name, value in configs.flatten(sections).items()},
        tags={"hgscale.verb": run.verb, "hgscale.run_dir": str(run_dir), **run.tags},
        resume_run_id=earlier,
    )
    if earlier is None and tracker.run_id is not None:
        write_json(note, {"run_id": tracker.run_id})
    tracker.log_input(run.data)
    return tracker


@contextmanager
def _following(run: Run, run_dir: Path, tracker: Tracker) -> Iterator[Progress]:
    """While the workers run, show what they log and ship it to MLflow."""
    stop = threading.Event()
    progress = of_training(run.config.train, run.verb)
    progress.say(f"{run.headline}; {run_dir}")  # starting workers takes a while, in which nothing else is shown
    failures: list[HgscaleError] = []

    def follow() -> None:
        offset = Offset()
        num_attempts = len(_attempts(run_dir))
        while True:
            ended = stop.wait(POLL_S)
            for attempt in _attempts(run_dir)[num_attempts:]:
                say_attempt(progress, attempt)
                num_attempts += 1
            if (run_dir / "log.jsonl").exists():
                records, offset = read_new(run_dir / "log.jsonl", offset)
                show_records(progress, records, run.config.train, run.verb)
                tracker.ship(records)
            if ended:
                return

    def follow_and_remember() -> None:
        try:
            follow()
        except HgscaleError as error:
            failures.append(error)

    thread = threading.Thread(target=follow_and_remember, name="follow-log", daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()
        progress.close()
    if failures:
        raise failures[0]


def _attempts(run_dir: Path) -> list[dict[str, Any]]:
    """What the workers have noted about their attempts; a line being written is read next time."""
    path = run_dir / "attempts.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
