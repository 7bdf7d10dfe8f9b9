"""The verb ``submit``: send another verb to a Ray cluster as a job, follow its log, and end as it ends.

What travels is the code of this package and the resolved config, nothing else: the job runs in an unpacked copy that
Ray deletes, so every place that the config names must be on storage that all nodes share. Secrets do not travel at all
(Ray shows a job's entry point, metadata and environment to whoever may see the job): they are in the environment that
the nodes were started with, or in a file on the shared storage of which only the path is sent.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hgscale
from hgscale import config as configs
from hgscale import verbs
from hgscale.cluster.job import Job, texts
from hgscale.errors import ConfigError, RunError
from hgscale.tracking import SECRETS_FILE, without_password

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONFIG_FILE = "job.yaml"
STOP_WAIT_S = 30  # that `ray job stop` leaves a job besides its grace_s for a last checkpoint; Ray's own 3 are too few
POLL_S = 1.0
LOST_S = 300.0  # of silence of the job server, after which it is given up
OWN_CODES = (0, 1, 2, 130)  # of hgscale; what a signal left is a failure
_SECRET_IN_QUERY = re.compile(r"://\S*[?&;]\w*(password|passwd|pwd|token|secret)\w*=", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Send a verb to a Ray cluster as a job, follow its log, and end as it ends."""

    address: str | None = None
    """The cluster's job server, as http://head:8265. Null: $RAY_API_SERVER_ADDRESS."""

    home: str | None = None
    """$HGSCALE_HOME of the job, on storage that all nodes share: for studies, and MLflow's file without a server."""

    secrets: str | None = None
    """File on the shared storage, mode 0600, that the job takes variables from, a NAME=VALUE a line: MLflow's login."""

    again: bool = False
    """Start another attempt though the last one succeeded."""

    no_wait: bool = False
    """Do not follow the job; submit it and return."""


@dataclass(frozen=True)
class SubmitResult:
    """What became of a submission.

    Attributes:
        submission_id: by which Ray knows the job.
        status: Ray's word for it: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: the job's own where it has ended, 0 where nobody waits for it.
        note: what to say about it, one line for standard error: standard output has the job's log.
    """

    submission_id: str
    status: str
    exit_code: int
    note: str

    def text(self) -> str:
        """What the command prints: nothing more than the log."""
        return ""


def submit(config: SubmitConfig, job: Job) -> SubmitResult:
    """Start a job, or attach to it where it runs already, and follow it to its end. A job that succeeded stays.

    Ctrl-C leaves the job alone and says how to come back.

    Raises:
        ConfigError: if the job could not work there, or the job server cannot be used; nothing has been sent then.
        DataError: if a world's file is wrong.
        RunError: if the job server went silent.
    """
    address = _address(config)
    check_places(config, job)
    if unseen := _unseen(job):
        _say(f"{unseen} is not seen from here; what depends on it is checked on the cluster")
    else:
        job.check()
    shown = without_password(address)
    with _job_server(address, shown) as client:
        submission_id, status = _start(client, config, job)
        if status == "SUCCEEDED":
            text = f"job {submission_id} has succeeded already; --again true runs it once more"
            return SubmitResult(submission_id, status, 0, text)
        follow = f"`ray job logs --follow --address {shown} {submission_id}`"
        stop = f"`ray job stop --address {shown} {submission_id}`"
        if config.no_wait:
            text = (
                f"job {submission_id} is with the cluster; follow it by the same command or {follow}, end it by {stop}"
            )
            return SubmitResult(submission_id, status, 0, text)
        try:
            return _result(submission_id, _followed(client, submission_id, shown))
        except KeyboardInterrupt:
            text = f"detached; job {submission_id} goes on: follow it by the same command or {follow}, end it by {stop}"
            return SubmitResult(submission_id, "RUNNING", 130, text)


# What is refused before anything is sent


def check_places(config: SubmitConfig, job: Job) -> None:
    """Refuse what would be lost with the unpacked copy, would name another file there, or would tell a secret.

    Raises:
        ConfigError: naming the field and the repair.
    """
    fields = job.fields()
    for name, value in fields.items():
        if any("://" in text and _tells(text) for text in texts(value)):
            raise ConfigError(
                f"{name} holds a password, which Ray would show with the job; leave it out of the address, and put "
                "it where the nodes find it: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the file of "
                "--secrets, or in the environment in which the nodes are started"
            )
        if name.rpartition(".")[2] == "address" and value is not None:
            raise ConfigError(f"{name}={value}: a job works on the cluster that it is submitted to; leave {name} out")
    for name in ("home", "secrets"):
        _check_absolute(name, getattr(config, name))
    for name, text in job.places("writes", "result"):
        _check_absolute(name, text)
    for name, text in job.places("reads"):
        if name == "data_dir" or not fields.get("data_dir"):
            _check_absolute(name, text)
    for name, text in job.places("named"):
        if text[:1] in "./~" or os.path.isdir(text):
            _check_absolute(name, text)
    _check_results(config, job, fields)
    _check_store(config, fields)


def _tells(address: str) -> bool:
    return without_password(address) != address or _SECRET_IN_QUERY.search(address) is not None


def _check_results(config: SubmitConfig, job: Job, fields: dict[str, Any]) -> None:
    result = next((name for name, kind in configs.path_fields(type(job.config)).items() if kind == "result"), None)
    if result is not None and fields[result] is None:
        raise ConfigError(
            f"{result} is null: results would be lost with the copy that the job runs in; name a directory on storage "
            f"that all nodes share, as --{result} /shared/runs/NAME"
        )
    if result is None and config.home is None:
        raise ConfigError(
            f"home is null: `{job.verb}` works below $HGSCALE_HOME, and its results would be lost with the copy that "
            "the job runs in; name a directory on storage that all nodes share, as --home /shared/runs"
        )


def _check_store(config: SubmitConfig, fields: dict[str, Any]) -> None:
    """MLflow's store must outlive the job, too."""
    if not fields.get("tracking.enabled"):
        return
    uri = fields["tracking.uri"]
    if uri is None and config.home is None:
        raise ConfigError(
            "tracking.uri is null: MLflow's file would be lost with the copy that the job runs in; give "
            "--tracking.uri http://host:5000, --home with a directory on storage that all nodes share, or "
            "--tracking.enabled false"
        )
    if uri is not None and ("://" not in uri or re.match(r"sqlite:///(?!/)", uri)):
        raise ConfigError(
            f"tracking.uri={uri} is a relative path; results of a job go to storage that all nodes share: give an "
            "absolute one, as sqlite:////shared/runs/mlflow.db, or a server's address"
        )


def _check_absolute(name: str, value: str | None) -> None:
    if value is not None and not os.path.isabs(value):
        raise ConfigError(
            f"{name}={value} is a relative path, and a job runs in a copy elsewhere; give the absolute path on storage "
            "that all nodes share"
        )


def _unseen(job: Job) -> str | None:
    """The first absolute path that the job reads and that is not there for us, as field=path."""
    for name, text in job.places("reads", "named"):
        if os.path.isabs(text) and not os.path.exists(text):
            return f"{name}={text}"
    return None


def _address(config: SubmitConfig) -> str:
    address = config.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise ConfigError("address is not given; name the cluster's job server, as --address http://head:8265")
    if not re.match(r"https?://[^/\s]", address):
        raise ConfigError(
            f"address={without_password(address)} is no job server's; give the dashboard's, as http://head:8265"
        )
    return address


# The job server


@contextmanager
def _job_server(address: str, shown: str) -> Iterator["JobSubmissionClient"]:
    """A client of the job server; what it raises, here or in the block, as one line.

    Raises:
        ConfigError: if nothing answers, what answers is no job server, or it does not take our token.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    # The mode is read when Ray is imported; the address, if it is set, goes before the argument.
    with configs.environment(RAY_AUTH_MODE=mode, RAY_API_SERVER_ADDRESS=address):
        _check_token_file()
        with _errors_as_lines(shown):
            yield _client(address)


def _client(address: str) -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    # Ray says on standard error what it packs and that it found no token; both are said here where they matter.
    logging.getLogger("ray").setLevel(logging.ERROR)
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except (RuntimeError, KeyError) as error:  # something answers that is no Ray
        raise ConnectionError(error) from None


@contextmanager
def _errors_as_lines(shown: str) -> Iterator[None]:
    """What goes wrong between us and the job server, as a ConfigError."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise ConfigError(
            f"{shown}: the token is missing or is not the cluster's; set RAY_AUTH_TOKEN_PATH to a file that holds it "
            "(or RAY_AUTH_TOKEN, or write ~/.ray/auth_token), and RAY_AUTH_MODE=token"
        ) from None
    except (ConnectionError, requests.RequestException) as error:
        raise ConfigError(
            f"{shown}: no job server can be used there ({_first_line(error)}); give the address of the head's "
            "dashboard, and see that it is up"
        ) from None


def _check_token_file() -> None:
    """Ray ends this process without a word that helps when the file of the token is not there."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path or os.environ.get("RAY_AUTH_TOKEN") or os.environ["RAY_AUTH_MODE"].lower() != "token":
        return
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"RAY_AUTH_TOKEN_PATH={path}: cannot be read ({error.strerror}); name the file that holds the cluster's "
            "token"
        ) from None
    if not token:
        raise ConfigError(f"RAY_AUTH_TOKEN_PATH={path}: is empty; write the cluster's token into it")


def _start(client: "JobSubmissionClient", config: SubmitConfig, job: Job) -> tuple[str, str]:
    """(Submission id, status) of the attempt that counts: a new one unless the last one runs or has succeeded."""
    attempt, status = _last_attempt(client, job.name)
    submission_id = f"{job.name}-{attempt}"
    if status in ("PENDING", "RUNNING"):
        _say(f"job {submission_id} is {status.lower()} already; attaching to it")
        return submission_id, status
    if status == "SUCCEEDED" and not config.again:
        return submission_id, status
    submission_id = f"{job.name}-{attempt + 1}"
    grace_s = configs.flatten(configs.to_dict(job.config)).get("cluster.grace_s", 0.0)
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(int(grace_s) + STOP_WAIT_S)}
    if config.home is not None:
        variables["HGSCALE_HOME"] = config.home
    if config.secrets is not None:
        variables[SECRETS_FILE] = config.secrets
    with tempfile.TemporaryDirectory(prefix="hgscale-job-") as folder:
        stage(job, Path(folder))
        try:
            client.submit_job(
                entrypoint=entrypoint(job),
                submission_id=submission_id,
                runtime_env={"working_dir": folder, "env_vars": variables},
                metadata={"hgscale_verb": job.verb, "hgscale_version": hgscale.__version__},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise RunError(f"the job server refused the job: {_first_line(error)}") from None
            # Somebody else has submitted the same between our question and our request.
    _say(f"job {submission_id}: {entrypoint(job)}")
    return submission_id, "PENDING"


def _last_attempt(client: "JobSubmissionClient", name: str) -> tuple[int, str | None]:
    """(Number, status) of the newest attempt at a job; (0, None) where there is none."""
    known = {job.submission_id: job.status.value for job in client.list_jobs() if job.submission_id}
    attempts = {
        int(match[1]): status for key, status in known.items() if (match := re.fullmatch(rf"{name}-(\d+)", key))
    }
    return max(attempts.items(), default=(0, None))


def entrypoint(job: Job) -> str:
    """The command that the cluster runs, in the unpacked copy; a training is checked there first."""
    run = f"python -m hgscale {job.verb} --config {CONFIG_FILE}"
    if verbs.verb(job.verb).trains:
        return f"python -m hgscale preflight {job.verb} --config {CONFIG_FILE} && {run}"
    return run


def stage(job: Job, folder: Path) -> None:
    """Fill a folder with what the job runs: this package's code, from a checkout or installed, and the config."""
    package = Path(hgscale.__file__).parent
    for source in package.rglob("*.py"):
        target = folder / package.name / source.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    configs.save(job.config, folder / CONFIG_FILE)


# Following a job


class _Log:
    """A job's log, printed as it grows. Ray sends it from its beginning after each reconnection."""

    def __init__(self, client: "JobSubmissionClient", submission_id: str) -> None:
        self.client, self.submission_id = client, submission_id
        self.num_printed = 0

    async def follow(self) -> None:
        """Print what is new until the job ends or the connection does."""
        num_read = 0
        async for text in self.client.tail_job_logs(self.submission_id):
            new = text[max(0, self.num_printed - num_read) :]
            num_read += len(text)
            self.num_printed = max(self.num_printed, num_read)
            sys.stdout.write(new)
            sys.stdout.flush()


def _followed(client: "JobSubmissionClient", submission_id: str, shown: str) -> "JobDetails":
    """Print a job's log until it ends; how it ended. A connection that breaks is made anew."""
    import aiohttp
    import requests

    log, heard = _Log(client, submission_id), time.monotonic()
    while True:
        reason: Exception | None = None
        try:
            asyncio.run(log.follow())
        except (aiohttp.ClientError, RuntimeError, OSError) as error:
            reason = error
        try:
            details = client.get_job_info(submission_id)
            heard = time.monotonic()
            if details.status.is_terminal():
                return details
        except (requests.RequestException, RuntimeError, OSError) as error:
            reason = error
        if time.monotonic() - heard > LOST_S:
            raise RunError(
                f"{shown} has not answered for {LOST_S:g} s ({_first_line(reason)}); job {submission_id} may go on: "
                "the same command attaches to it, or starts the next attempt"
            )
        time.sleep(POLL_S)


def _result(submission_id: str, details: "JobDetails") -> SubmitResult:
    """A job that ended, as an exit code and a line."""
    status, code = details.status.value, details.driver_exit_code
    if status == "SUCCEEDED":
        return SubmitResult(submission_id, status, 0, f"job {submission_id} succeeded")
    if status == "STOPPED":
        text = f"job {submission_id} was stopped; the same command starts its next attempt"
        return SubmitResult(submission_id, status, 130, text)
    reason = f"with exit status {code}" if code is not None else f"without one: {_first_line(details.message)}"
    text = f"job {submission_id} failed {reason}; the same command starts its next attempt"
    return SubmitResult(submission_id, status, code if code in OWN_CODES and code else 1, text)


def _first_line(said: object) -> str:
    """What an error says, as one line without passwords."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return without_password(lines[0])[:240] if lines else type(said).__name__


def _say(line: str) -> None:
    print(f"hgscale: {line}", file=sys.stderr, flush=True)
