"""One training is one MLflow run, across restarts: re-opened, never doubled, ended with a status.

The run's log on disk is the truth and what is shipped here a copy. A tracking server that goes away costs a warning,
not a training: points wait in memory, and a restart ships the whole log again, of which what is there is left out.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hgscale.errors import ConfigError
from hgscale.tracking.entries import DataInput, Points, allowed_params, changed_params, dataset_input, log_missing
from hgscale.tracking.store import (
    Availability,
    Complaint,
    TrackingConfig,
    complaint_of,
    find_experiment,
    how_to_open,
    opened,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

RETRY_WAIT_S = 30.0
"""Between two tries to reach a server that went away."""

MAX_METRICS_PER_BATCH = 1000
"""MLflow's own limit; what was taken is not sent again when a later batch fails."""

_log = logging.getLogger("hgscale.tracking")


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
        tags = dict(tags) | {"hgscale.fingerprint": fingerprint}
        with opened(config) as (client, uri):
            if resume_run_id is None:
                experiment_id = find_experiment(client, uri, config.experiment)
                run = create(client, experiment_id, config.run_name or name, params, tags)
            else:
                run = _earlier_run(client, without_password(uri), resume_run_id, fingerprint)
                reopen(client, run, params, tags)
            return _MlflowTracker(client, without_password(uri), run)

    def log_input(self, data: DataInput) -> None:
        """Note what the run is trained on, so that runs on different data are told apart."""

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
    """A tracker with a run behind it; ``_waiting`` and ``_calls`` wait until the store took them."""

    def __init__(self, client: "MlflowClient", shown_uri: str, run: "Run") -> None:
        self.run_id: str = run.info.run_id
        self._client = client
        self._shown_uri = shown_uri
        self._experiment_id = run.info.experiment_id
        self._points = Points.read(client, run)
        self._waiting: list[Metric] = []
        self._calls: list[Callable[[], None]] = []
        self._availability = Availability(shown_uri)
        self._not_before = 0.0

    def log_input(self, data: DataInput) -> None:
        self._calls.append(lambda: self._client.log_inputs(self.run_id, datasets=[dataset_input(data)]))
        self._flush()

    def ship(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._waiting += self._points.of_records(records)
        self._flush()

    def log_final(self, summary: Mapping[str, Any]) -> None:
        self._waiting += self._points.of_summary(summary, time.time())
        self._flush(now=True)

    def log_artifact(self, path: Path) -> None:
        self._calls.append(lambda: self._client.log_artifact(self.run_id, str(path)))
        self._flush(now=True)

    def finish(self, status: Status) -> None:
        complaint = self._send()
        num_points, num_calls = len(self._waiting), len(self._calls)
        # What the store did not take must not keep the run from ending.
        self._waiting, self._calls = [], [lambda: self._client.set_terminated(self.run_id, status)]
        complaint = self._send() or complaint
        if complaint:
            _log.warning(
                "tracking: %s: %s; run %s, which is %s, misses %d points and %d other entries there: "
                "all is in the run directory, and the same command sends it again",
                self._shown_uri, complaint.text, self.run_id, status, num_points, num_calls + len(self._calls),
            )  # fmt: skip

    def how_to_open(self) -> str:
        return how_to_open(self._shown_uri, self._experiment_id, self.run_id)

    def _flush(self, now: bool = False) -> None:
        """Send what waits; where the store fails, warn once and leave it alone for a while."""
        if not now and time.monotonic() < self._not_before:
            return
        complaint = self._send()
        self._availability.note(complaint)
        self._not_before = time.monotonic() + RETRY_WAIT_S if complaint else 0.0

    def _send(self) -> Complaint | None:
        """Try everything that waits, keep what the store does not take, and return its last complaint."""
        complaint = complaint_of(self._send_points)
        for call in list(self._calls):
            if trouble := complaint_of(call):
                complaint = trouble
            else:
                self._calls.remove(call)
        return complaint

    def _send_points(self) -> None:
        while self._waiting:
            self._client.log_batch(self.run_id, metrics=self._waiting[:MAX_METRICS_PER_BATCH])
            del self._waiting[:MAX_METRICS_PER_BATCH]


def create(
    client: "MlflowClient", experiment_id: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> "Run":
    """A new run, running, of a first attempt. Raises what MLflow raises."""
    tags = dict(tags) | {"hgscale.attempt": "1"}
    run = client.create_run(experiment_id, run_name=name, tags=tags)
    log_missing(client, run, allowed_params(params), tags)
    return run


def reopen(client: "MlflowClient", run: "Run", params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Set a run of earlier attempts to running, for one more. Raises what MLflow raises."""
    attempt = int(run.data.tags.get("hgscale.attempt", 0)) + 1
    params = allowed_params(params)
    tags = dict(tags) | {"hgscale.attempt": str(attempt)} | changed_params(run, params, attempt)
    client.update_run(run.info.run_id, status="RUNNING")
    log_missing(client, run, params, tags)


def _earlier_run(client: "MlflowClient", shown_uri: str, run_id: str, fingerprint: str) -> "Run":
    """The run of the earlier attempts, or a ConfigError that says what is wrong with it."""
    from mlflow.exceptions import MlflowException

    anew = "remove tracking.json to record the whole log as a new run"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(
            f"tracking: run {run_id} is not in {shown_uri}; give the tracking.uri of the first attempt, or {anew}"
        ) from None
    if run.info.lifecycle_stage != "active":
        raise ConfigError(
            f"tracking: run {run_id} was deleted from {shown_uri}; restore it (mlflow runs restore), or {anew}"
        )
    earlier = run.data.tags.get("hgscale.fingerprint")
    if earlier != fingerprint:
        raise ConfigError(
            f"tracking: run {run_id} in {shown_uri} is of a training with fingerprint {earlier}, "
            f"this one has {fingerprint}; give another --run_dir, or the config of the first attempt"
        )
    return run
