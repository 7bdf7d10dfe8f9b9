"""One training is one MLflow run, across restarts: re-opened, never doubled, ended with a status. Only here: mlflow.

The run's log on disk is the truth and what is shipped here a copy. A tracking server that goes away costs a warning,
not a training: points wait in memory, and a restart ships the whole log again, of which what is there is left out.
"""

import fcntl
import json
import logging
import numbers
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hgscale.config import runs_home
from hgscale.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

RETRY_WAIT_S = 30.0
"""Between two tries to reach a server that went away."""

# MLflow's own limits (mlflow/utils/validation.py of 3.17).
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = 100
MAX_PARAM_LENGTH = 6000
MAX_DIGEST_LENGTH = 36

LOWER_IS_BETTER = ("loss", "l1", "recovery_l1", "ratio_to_floor")
HIGHER_IS_BETTER = ("accuracy", "f1", "ari")
"""Last parts of the names of metrics whose best value over the run is logged as ``best/<name>``."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where a run's numbers are remembered; decides no number."""

    enabled: bool = True
    """Record the run in MLflow. Without it the run directory still holds everything."""

    uri: str | None = None
    """MLflow tracking URI. Null: $MLFLOW_TRACKING_URI, else sqlite:///<runs home>/mlflow.db, artifacts beside it."""

    experiment: str = "hgscale"
    """MLflow experiment, made if missing."""

    run_name: str | None = None
    """Name of the run on MLflow's page. Null: the name of the run directory."""


class Tracker:
    """Remembers nothing: what a run has whose tracking is off, and the interface of the one that remembers.

    Attributes:
        run_id: of the MLflow run; the caller keeps it in the run directory and gives it to the next attempt.
    """

    run_id: str | None = None

    @staticmethod
    def start(
        config: TrackingConfig,
        *,
        fingerprint: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        resume_run_id: str | None = None,
    ) -> "Tracker":
        """Create the run of a training, or re-open it for one more attempt.

        Args:
            config: where to.
            fingerprint: of the training's config, kept as tag ``hgscale.fingerprint``; a re-opened run must have it.
            name: of the run, unless the config names it.
            params: of the run. MLflow never changes one: what differs in a later attempt, as the number of workers may,
                becomes the tag ``hgscale.attempt.<k>.<param>``.
            tags: of the run; a later attempt's overwrite.
            resume_run_id: ``run_id`` of the earlier attempts; the caller ships the whole log again.

        Raises:
            ConfigError: if the store cannot be used, or does not hold the run to re-open.
        """
        if not config.enabled:
            return Tracker()
        uri = _resolved(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri())
        _set_up_mlflow()
        with _store_errors(uri), _usable_and_alone(uri):
            return _open(config, uri, fingerprint, name, params, tags, resume_run_id)

    def log_world(self, digest: str, num_nodes: int, num_edges: int, source: str) -> None:
        """Note the world as the run's dataset input, so that runs on different worlds are told apart.

        Args:
            digest: ``Hypergraph.digest``, at most 36 characters.
            num_nodes: of the world.
            num_edges: of the world.
            source: the file or the generator it came from.
        """

    def ship(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Send records of ``log.jsonl``; per metric only steps beyond the last one sent, in this attempt or an earlier.

        What is not a number is left out. A store that cannot be reached raises nothing: points wait for the next call.
        """

    def log_final(self, summary: Mapping[str, Any]) -> None:
        """Log the numbers of a summary as ``final/*``, and the best of what was shipped as ``best/*``."""

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the run's artifacts."""

    def finish(self, status: Status) -> None:
        """Send what waits and end the run; a store that cannot be reached costs one line of warning."""

    def how_to_open(self) -> str:
        """What a reader does to see the run: an address, or a command."""
        return "tracking is off (tracking.enabled: false); the run directory holds everything"


class _MlflowTracker(Tracker):
    """A tracker with a run behind it; ``_points`` and ``_calls`` wait until the store took them."""

    def __init__(self, client: "MlflowClient", uri: str, experiment_id: str, run_id: str) -> None:
        self.run_id: str = run_id
        self._client = client
        self._uri = _without_password(uri)
        self._experiment_id = experiment_id
        self._points: list[Metric] = []
        self._calls: list[Callable[[], None]] = []
        self._last_step: dict[str, int] = {}
        self._best: dict[str, float] = {}
        self._complaint = ""
        self._not_before = 0.0
        for metric in client.get_run(run_id).data.metrics:
            if not metric.startswith(("final/", "best/")):
                for point in client.get_metric_history(run_id, metric):
                    self._note(point.key, point.step, point.value)

    def log_world(self, digest: str, num_nodes: int, num_edges: int, source: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        world = Dataset(
            name="world",
            digest=digest[:MAX_DIGEST_LENGTH],
            source_type="code",
            source=json.dumps({"tags": {"hgscale.world": source}}),
            profile=json.dumps({"num_nodes": num_nodes, "num_edges": num_edges}),
        )
        context = InputTag("mlflow.data.context", "training")
        self._calls.append(lambda: self._client.log_inputs(self.run_id, datasets=[DatasetInput(world, [context])]))
        self._flush()

    def ship(self, records: Iterable[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        for record in records:
            step, time_ms = record["step"], int(record["time"] * 1000)
            for raw_name, value in record.items():
                name = _metric_name(raw_name)
                if raw_name in ("step", "time") or not _is_number(value) or step <= self._last_step.get(name, -1):
                    continue
                self._note(name, step, value)
                # The time is the record's own: a batch that arrived although its answer was lost changes nothing
                # when it is sent again.
                self._points.append(Metric(name, float(value), time_ms, step))
        self._flush()

    def log_final(self, summary: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        last_step, now_ms = max(self._last_step.values(), default=0), int(time.time() * 1000)
        values = {f"final/{name}": value for name, value in summary.items() if _is_number(value)}
        values |= {f"best/{name}": value for name, value in self._best.items()}
        self._points += [Metric(_metric_name(name), float(value), now_ms, last_step) for name, value in values.items()]
        self._flush(now=True)

    def log_artifact(self, path: Path) -> None:
        self._calls.append(lambda: self._client.log_artifact(self.run_id, str(path)))
        self._flush(now=True)

    def finish(self, status: Status) -> None:
        complaint = self._send()
        num_points, num_calls = len(self._points), len(self._calls)
        # What the store did not take must not keep the run from ending.
        self._points, self._calls = [], [lambda: self._client.set_terminated(self.run_id, status)]
        complaint = self._send() or complaint
        if complaint:
            _log.warning(
                "tracking: %s: %s; run %s, which is %s, misses %d points and %d other entries there: "
                "all is in the run directory, and the same command sends it again",
                self._uri, complaint, self.run_id, status, num_points, num_calls + len(self._calls),
            )  # fmt: skip

    def how_to_open(self) -> str:
        page = f"#/experiments/{self._experiment_id}/runs/{self.run_id}"
        if self._uri.startswith("http"):
            return f"{self._uri.rstrip('/')}/{page}"
        return f"mlflow ui --backend-store-uri {self._uri}   then http://127.0.0.1:5000/{page}"

    def _note(self, name: str, step: int, value: float) -> None:
        """Remember that a point is on its way, or was there before."""
        self._last_step[name] = max(step, self._last_step.get(name, -1))
        last_part = name.rsplit("/", 1)[-1]
        better = min if last_part in LOWER_IS_BETTER else max if last_part in HIGHER_IS_BETTER else None
        if better and value == value:  # a value that is not a number is no best
            self._best[name] = better(value, self._best.get(name, value))

    def _flush(self, now: bool = False) -> None:
        """Send what waits; where the store fails, warn once and leave it alone for a while."""
        if not now and time.monotonic() < self._not_before:
            return
        complaint = self._send()
        if complaint and not self._complaint:
            _log.warning("tracking: %s: %s; the run goes on, what is to be sent waits", self._uri, complaint)
        if self._complaint and not complaint:
            _log.warning("tracking: %s answers again; what waited is sent", self._uri)
        self._complaint = complaint
        self._not_before = time.monotonic() + RETRY_WAIT_S if complaint else 0.0

    def _send(self) -> str:
        """Try everything that waits, keep what the store does not take, and return its last complaint, or nothing."""
        complaint = _complaint_of(self._send_points)
        for call in list(self._calls):
            if trouble := _complaint_of(call):
                complaint = trouble
            else:
                self._calls.remove(call)
        return complaint

    def _send_points(self) -> None:
        while self._points:
            self._client.log_batch(self.run_id, metrics=self._points[:MAX_METRICS_PER_BATCH])
            del self._points[:MAX_METRICS_PER_BATCH]


def _complaint_of(call: Callable[[], None]) -> str:
    """What a store, a network or a disk says against a call; nothing if it went well."""
    from mlflow.exceptions import MlflowException

    try:
        call()
    except (MlflowException, OSError) as error:
        return _one_line(error)
    return ""


def _open(
    config: TrackingConfig,
    uri: str,
    fingerprint: str,
    name: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    resume_run_id: str | None,
) -> Tracker:
    """Create or re-open the run behind a tracker. Raises what MLflow raises."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    params = {_metric_name(key): _shortened(value) for key, value in params.items()}
    tags = dict(tags) | {"hgscale.fingerprint": fingerprint}
    if resume_run_id is None:
        tags["hgscale.attempt"] = "1"
        experiment_id = _experiment_id(client, uri, config.experiment)
        run = client.create_run(experiment_id, run_name=config.run_name or name, tags=tags)
    else:
        run = _earlier_run(client, _without_password(uri), resume_run_id, fingerprint)
        attempt = int(run.data.tags.get("hgscale.attempt", 0)) + 1
        tags["hgscale.attempt"] = str(attempt)
        known = run.data.params
        tags |= {
            f"hgscale.attempt.{attempt}.{key}": params[key]
            for key in params
            if known.get(key, params[key]) != params[key]
        }
        client.update_run(resume_run_id, status="RUNNING")
    _log_params_and_tags(client, run, params, tags)
    return _MlflowTracker(client, uri, run.info.experiment_id, run.info.run_id)


def _log_params_and_tags(
    client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    """Log what the run does not hold yet, in batches that MLflow takes."""
    from mlflow.entities import Param, RunTag

    new_params = [Param(key, value) for key, value in params.items() if key not in run.data.params]
    new_tags = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    for start in range(0, max(len(new_params), len(new_tags)), MAX_PARAMS_PER_BATCH):
        batch = slice(start, start + MAX_PARAMS_PER_BATCH)
        client.log_batch(run.info.run_id, params=new_params[batch], tags=new_tags[batch])


def _earlier_run(client: "MlflowClient", uri: str, run_id: str, fingerprint: str) -> "Run":
    """The run of the earlier attempts, or a ConfigError that says what is wrong with it."""
    from mlflow.exceptions import MlflowException

    anew = "remove tracking.json to record the whole log as a new run"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(
            f"tracking: run {run_id} is not in {uri}; give the tracking.uri of the first attempt, or {anew}"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise ConfigError(f"tracking: run {run_id} was deleted from {uri}; restore it (mlflow runs restore), or {anew}")
    earlier = run.data.tags.get("hgscale.fingerprint")
    if earlier != fingerprint:
        raise ConfigError(
            f"tracking: run {run_id} in {uri} is of a training with fingerprint {earlier}, this one has {fingerprint}; "
            "give another --run_dir, or the config of the first attempt"
        )
    return run


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """The experiment of this name, made if missing: artifacts beside a local store, where a server says otherwise."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name, artifact_location=_artifact_location(uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another training was faster
                raise
        experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    if experiment.lifecycle_stage != "active":
        raise ConfigError(
            f"tracking.experiment={name} was deleted from {_without_password(uri)}; "
            f"restore it (mlflow experiments restore -x {experiment.experiment_id}) or give another name"
        )
    return experiment.experiment_id


def _set_up_mlflow() -> None:
    """Import MLflow quiet, sending no usage data, and giving up on a silent server after seconds, not minutes.

    Its import takes seconds, so nothing here imports it at the top. What the user set in the environment stays.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # is read at import
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow  # noqa: F401

    for name, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("urllib3.connectionpool", "ERROR")):
        logging.getLogger(name).setLevel(level)


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn what an unusable store raises into one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        raise ConfigError(
            f"tracking.uri={_without_password(uri)} cannot be used: {_one_line(error)}; "
            "give another tracking.uri or $MLFLOW_TRACKING_URI (sqlite:////absolute/path/mlflow.db, http://host:5000), "
            "or --tracking.enabled false"
        ) from None


def _default_uri() -> str:
    return f"sqlite:///{runs_home().absolute() / 'mlflow.db'}"


def _sqlite_path(uri: str) -> Path | None:
    """The file behind a sqlite URI, absolute; None for any other store."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix).split("?")[0]).absolute() if uri.startswith(prefix) else None


def _resolved(uri: str) -> str:
    """A sqlite URI with its path made absolute, so that it means the same to whoever reads it; others as they are."""
    path = _sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}" + "".join(uri.partition("?")[1:])


def _without_password(text: str) -> str:
    return re.sub(r"://([^/@\s:]*):[^/@\s]*@", r"://\1:***@", text)


def _artifact_location(uri: str) -> str | None:
    if uri.startswith(("http:", "https:")):
        return None
    path = _sqlite_path(uri)
    home = path.parent if path else runs_home().absolute()
    return (home / "mlartifacts").as_uri()


@contextmanager
def _usable_and_alone(uri: str) -> Iterator[None]:
    """Hold a sqlite file while MLflow sets it up; other stores look after themselves.

    Two reasons, both seen with MLflow 3.17: an unusable file is tried ten times in 100 s, so the write lock is asked
    for first; and two trainings that start on a new file at once both upgrade its tables, which fails in one of them.
    """
    path = _sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=60)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.rollback()
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _metric_name(name: str) -> str:
    """A name that MLflow takes on any system: letters, digits, ``_ - . /``, and a path that is its own normal form."""
    parts = re.sub(r"[^A-Za-z0-9_\-./]", "_", name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:250]


def _shortened(value: str) -> str:
    return value if len(value) <= MAX_PARAM_LENGTH else value[: MAX_PARAM_LENGTH - 3] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _one_line(error: BaseException) -> str:
    """An error's text without line breaks; of a long one the two ends, for MLflow names the cause last."""
    text = _without_password(" ".join(str(error).split()))
    return text if len(text) <= 240 else f"{text[:120]} ... {text[-115:]}"
