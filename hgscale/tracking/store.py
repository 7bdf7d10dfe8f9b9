"""Where runs are remembered: the address of an MLflow store, how it is opened, and how its complaints are told."""

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hgscale.config import environment, runs_home
from hgscale.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUNS_PER_PAGE = 500
TRY_S = 5  # that a store is given to answer, where it is only tried
SECRETS_FILE = "HGSCALE_SECRETS"
"""Environment variable with the path of a file that holds what may not be shown: a NAME=VALUE a line, mode 0600."""

_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
_NEEDS_LOGIN = (401, 403)

_log = logging.getLogger("hgscale.tracking")


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


@contextmanager
def opened(config: TrackingConfig) -> Iterator[tuple["MlflowClient", str]]:
    """A client of the store, which is made if it is a new file, and the store's URI, which may hold a password.

    Raises:
        ConfigError: if the store cannot be used, here or inside the block.
    """
    _read_secrets()
    uri = _resolved(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri())
    _set_up_mlflow()
    with _store_errors(uri), _usable_and_alone(uri):
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri), uri


def try_store(config: TrackingConfig) -> None:
    """See whether a store answers, within seconds, and leave nothing there: a file that is not there is not made.

    Raises:
        ConfigError: if it cannot be used.
    """
    if not config.enabled:
        return
    _read_secrets()
    uri = _resolved(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri())
    path = _sqlite_path(uri)
    if path is not None and not path.exists():
        place = next(folder for folder in path.parents if folder.exists())
        with _store_errors(uri):
            if not (place.is_dir() and os.access(place, os.W_OK)):
                raise PermissionError(f"{place} cannot be written")
        return
    with _impatient(), opened(config) as (client, _):
        client.search_experiments(max_results=1)


@contextmanager
def _impatient() -> Iterator[None]:
    """While this lasts, MLflow asks a server once and waits for seconds."""
    with environment(MLFLOW_HTTP_REQUEST_TIMEOUT=str(TRY_S), MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        yield


def find_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, made if missing: artifacts beside a local store, where a server says otherwise.

    Raises:
        ConfigError: if it was deleted.
    """
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
            f"tracking.experiment={name} was deleted from {without_password(uri)}; "
            f"restore it (mlflow experiments restore -x {experiment.experiment_id}) or give another name"
        )
    return str(experiment.experiment_id)


def find_runs(
    client: "MlflowClient", experiment_id: str, tags: Mapping[str, str], status: str | None = None
) -> list["Run"]:
    """The runs that carry all these tags and have this status, deleted ones left out. Raises what MLflow raises."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    if status is not None:
        wanted += f" and attributes.status = '{status}'"
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=RUNS_PER_PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def how_to_open(shown_uri: str, experiment_id: str, run_id: str) -> str:
    """What a reader does to see a run: an address, or a command."""
    # Without the last part MLflow 3 takes every run for an evaluation of a language model.
    page = f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
    if shown_uri.startswith("http"):
        return f"{shown_uri.rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri {shown_uri}   then http://127.0.0.1:5000/{page}"


class Complaint(NamedTuple):
    """What a store, a network or a disk said against a call; final if asking again is of no use."""

    text: str
    is_final: bool


def complaint_of(call: Callable[[], None]) -> Complaint | None:
    """Do a call; None if it went well."""
    from mlflow.exceptions import MlflowException

    try:
        call()
    except MlflowException as error:
        return Complaint(_one_line(error), error.error_code in _REFUSALS)
    except OSError as error:
        return Complaint(_one_line(error), isinstance(error, FileNotFoundError))
    return None


class Availability:
    """Tells once that a store does not take what it is sent, and once that it does again."""

    def __init__(self, shown_uri: str) -> None:
        self._shown_uri = shown_uri
        self._is_down = False

    def note(self, complaint: Complaint | None) -> None:
        """Take the outcome of a try."""
        if complaint and not self._is_down:
            _log.warning("tracking: %s: %s; the run goes on, what is to be sent waits", self._shown_uri, complaint.text)
        if self._is_down and not complaint:
            _log.warning("tracking: %s answers again; what waited is sent", self._shown_uri)
        self._is_down = complaint is not None


def without_password(text: str) -> str:
    """A text with the password of every URI in it starred out."""
    return re.sub(r"://([^/@\s:]*):[^/\s]*@", r"://\1:***@", text)


def _read_secrets() -> None:
    """Take variables from the file that ``$HGSCALE_SECRETS`` names; they go before those of the environment.

    A job on a cluster gets its logins this way: Ray shows a job's own environment, so only the path is in there.

    Raises:
        ConfigError: if the file cannot be read, can be read by others, or is no such file.
    """
    name = os.environ.get(SECRETS_FILE)
    if not name:
        return
    try:
        mode, text = Path(name).stat().st_mode & 0o777, Path(name).read_text()
    except OSError as error:
        raise ConfigError(
            f"${SECRETS_FILE}={name}: cannot be read ({error.strerror}); put the file on storage that all nodes share"
        ) from None
    if mode & 0o077:
        raise ConfigError(f"${SECRETS_FILE}={name}: others may read it (mode {mode:04o}); chmod 600 {name}")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        variable, equals, value = line.partition("=")
        if not equals or not variable.isidentifier():
            raise ConfigError(f"{name}: line {number} is not NAME=VALUE; write MLFLOW_TRACKING_USERNAME=me")
        os.environ[variable] = value


def _set_up_mlflow() -> None:
    """Import MLflow quiet, sending no usage data, and giving up on a silent server after seconds, not minutes.

    Its import takes seconds, so nothing here imports it at the top. What the user set in the environment stays.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # is read at import
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # Two lines on stdout for every run that ends, with the password of the server's address, if it has one.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow  # noqa: F401

    # mlflow.store.db.utils: what goes wrong in a database is raised besides, and told by us in one line.
    levels = {"mlflow": "WARNING", "mlflow.store.db.utils": "CRITICAL", "alembic": "WARNING"}
    levels["urllib3.connectionpool"] = "ERROR"
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    """Turn what an unusable store raises into one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        needs_login = isinstance(error, MlflowException) and error.get_http_status_code() in _NEEDS_LOGIN
        repair = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            if needs_login
            else "give another tracking.uri or $MLFLOW_TRACKING_URI (sqlite:////absolute/path/mlflow.db, "
            "http://host:5000)"
        )
        raise ConfigError(
            f"tracking.uri={without_password(uri)} cannot be used: {_one_line(error)}; "
            f"{repair}, or --tracking.enabled false"
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


def _one_line(error: BaseException) -> str:
    """An error's text without line breaks; of a long one the two ends, for MLflow names the cause last."""
    text = without_password(" ".join(str(error).split()))
    return text if len(text) <= 240 else f"{text[:120]} ... {text[-115:]}"
