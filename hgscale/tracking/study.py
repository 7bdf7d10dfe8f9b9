"""One study is one MLflow run, and each of its cells a child of it: exactly one, whatever was interrupted when.

The cells' directories are the truth, and the spool: what did not reach the store is sent by the next run of the study.
A child is known by its tags, so that whoever finds it half sent completes it. Its status is set last: a child with a
final status is wholly there.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgscale.files import write_json
from hgscale.tracking.entries import (
    MAX_NAME_LENGTH,
    MAX_TAG_LENGTH,
    DataInput,
    Points,
    allowed_params,
    changed_params,
    dataset_input,
    log_missing,
    shortened,
    single_points,
)
from hgscale.tracking.run import Status, create, reopen
from hgscale.tracking.sender import Sender
from hgscale.tracking.store import TrackingConfig, find_experiment, find_runs, how_to_open, opened, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

PATIENCE_S = 180.0
"""How long the end of a study waits for a store that takes nothing."""

_log = logging.getLogger("hgscale.tracking")


@dataclass(frozen=True, kw_only=True)
class CellRun:
    """What an ended cell is remembered by."""

    fingerprint: str
    """Of the cell's config: one child of the study for each."""

    name: str
    """On MLflow's page."""

    status: Status
    """How it ended."""

    start_s: float
    """When it was started, in seconds since 1970."""

    end_s: float
    """When it ended, in seconds since 1970."""

    seed: int
    """Kept as tag ``hgscale.seed``."""

    variant: str | None = None
    """Kept as tag ``hgscale.variant``."""

    axes: Mapping[str, Any] = field(default_factory=dict)
    """Value of each axis by dotted field: params ``axis/<field>``, and metrics of the same name if they are numbers."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """The cell's whole config, by dotted field."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """Anything else that is known about it."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """Its numbers are logged as ``final/*``."""

    records: Sequence[Mapping[str, Any]] = ()
    """Of its ``log.jsonl``: points of curves."""

    data: DataInput | None = None
    """Logged as the run's dataset input."""

    artifacts: Sequence[Path] = ()
    """Small files to copy; those that are not there are left out."""

    error: str | None = None
    """Why it failed, kept as tag ``hgscale.error``."""


class StudyTracker:
    """Remembers nothing: what a study has whose tracking is off, and the interface of the one that remembers.

    No call but ``start`` and ``finish`` waits for the store.

    Attributes:
        run_id: of the study's MLflow run, the parent of its cells' runs.
    """

    run_id: str | None = None

    @staticmethod
    def start(
        config: TrackingConfig,
        *,
        directory: Path,
        name: str,
        fingerprint: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> "StudyTracker":
        """Create the run of a study, or re-open it, and see which cells it holds.

        Args:
            config: where to; in another store or experiment than last time, everything is sent there anew.
            directory: of the study, which exists. ``tracking.json`` in it holds the key by which the run is found
                again; it is written first, so that a study killed while it is created finds its run as well.
            name: of the study, kept as tag ``hgscale.study`` of all its runs, and name of the run unless the config
                names it.
            fingerprint: of the study's grid, kept as tag ``hgscale.fingerprint``.
            params: of the study; what differs in a later attempt becomes the tag ``hgscale.attempt.<k>.<param>``.
            tags: of the study; a later attempt's overwrite.

        Raises:
            ConfigError: if the store cannot be used.
        """
        if not config.enabled:
            return StudyTracker()
        with opened(config) as (client, uri):
            experiment_id = find_experiment(client, uri, config.experiment)
            mark = {"hgscale.study_key": _key(directory)}
            tags = dict(tags) | mark | {"hgscale.study": name, "hgscale.fingerprint": fingerprint}
            if earlier := find_runs(client, experiment_id, mark):
                parent = _only(client, earlier)
                reopen(client, parent, params, tags)
            else:
                create(client, experiment_id, config.run_name or name, params, tags)
                # An answer that is lost on its way makes MLflow's client ask again, and the server a second run.
                parent = _only(client, find_runs(client, experiment_id, mark))
            cells = _only_of_each_cell(client, find_runs(client, experiment_id, _child_of(parent.info.run_id)))
            return _MlflowStudyTracker(client, without_password(uri), name, parent, cells)

    def shipped(self) -> dict[str, Status]:
        """Fingerprints of the cells that are wholly in the store, with the status they have there."""
        return {}

    def ship(self, cell: CellRun) -> None:
        """Send an ended cell; one that the store holds already, failed or half sent, is completed."""

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Log numbers of the study as a whole; what is no number, or is there with this value, is left out."""

    def log_artifact(self, path: Path) -> None:
        """Copy a file, or a directory under its name, to the study's artifacts."""

    def describe(self, markdown: str) -> None:
        """Set the description on the study's page in MLflow, at most 8,000 characters."""

    def finish(self, status: Status) -> None:
        """Send what waits and end the run: waits while the store takes something, and 3 minutes for one that does not.

        What was not sent costs one line of warning: the same study, run again, sends it.
        """

    def how_to_open(self) -> str:
        """What a reader does to see the study: an address, or a command."""
        return "tracking is off (tracking.enabled: false); the study's directory holds everything"


class _MlflowStudyTracker(StudyTracker):
    """A tracker with a run behind it; what it knows of cells is written by the sender's thread alone."""

    def __init__(
        self, client: "MlflowClient", shown_uri: str, name: str, parent: "Run", cells: Mapping[str, "Run"]
    ) -> None:
        self.run_id: str = parent.info.run_id
        self._client = client
        self._shown_uri = shown_uri
        self._name = name
        self._experiment_id = parent.info.experiment_id
        self._logged = dict(parent.data.metrics)
        self._run_ids = {fingerprint: run.info.run_id for fingerprint, run in cells.items()}
        self._ended = {
            fingerprint: run.info.status for fingerprint, run in cells.items() if run.info.status != "RUNNING"
        }
        self._num_batches = 0
        self._asked: set[str] = set()
        self._sender = Sender(shown_uri)

    def shipped(self) -> dict[str, Status]:
        return dict(self._ended)

    def ship(self, cell: CellRun) -> None:
        self._sender.put(f"cell {cell.fingerprint}", lambda: self._send(cell))

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        points = [point for point in single_points(values, time.time()) if self._logged.get(point.key) != point.value]
        if not points:
            return
        self._logged |= {point.key: point.value for point in points}
        self._num_batches += 1
        self._sender.put(f"metrics {self._num_batches}", lambda: self._client.log_batch(self.run_id, points))

    def log_artifact(self, path: Path) -> None:
        self._sender.put(f"artifact {path.name}", lambda: self._client.log_artifact(self.run_id, str(path)))

    def describe(self, markdown: str) -> None:
        text = shortened(markdown, MAX_TAG_LENGTH)
        self._sender.put("description", lambda: self._client.set_tag(self.run_id, "mlflow.note.content", text))

    def finish(self, status: Status) -> None:
        self._sender.put("end", lambda: self._end(status))
        left = self._sender.close(PATIENCE_S)
        if left:
            num_cells = sum(name.startswith("cell ") for name in left)
            _log.warning(
                "tracking: %s: %d cells and %d other entries of study %s, which is %s, are not there: "
                "all is in the study's directory, and the same command sends it again",
                self._shown_uri, num_cells, len(left) - num_cells, self._name, status,
            )  # fmt: skip

    def how_to_open(self) -> str:
        return how_to_open(self._shown_uri, self._experiment_id, self.run_id)

    def _send(self, cell: CellRun) -> None:
        """Create or complete the child of a cell. Raises what MLflow raises; doing it again does no harm."""
        run = self._child(cell)
        run_id = run.info.run_id
        # Without a status of its own it is from an interrupted try to send this very end.
        attempt = int(run.data.tags.get("hgscale.attempt", 1)) + (run.info.status != "RUNNING")
        params = allowed_params({f"axis/{name}": value for name, value in cell.axes.items()} | dict(cell.params))
        tags = self._tags(cell) | {"hgscale.attempt": str(attempt)} | changed_params(run, params, attempt)
        log_missing(self._client, run, params, tags, self._metrics(cell, run))
        if cell.error is None and "hgscale.error" in run.data.tags:
            self._client.delete_tag(run_id, "hgscale.error")
        if cell.data is not None:
            self._client.log_inputs(run_id, datasets=[dataset_input(cell.data)])
        self._copy_artifacts(cell, run)
        self._client.set_terminated(run_id, cell.status, int(cell.end_s * 1000))
        self._ended[cell.fingerprint] = cell.status

    def _copy_artifacts(self, cell: CellRun, run: "Run") -> None:
        # As MlflowClient.log_artifact does, which asks the server first for what the run says already.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        folder = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._client.tracking_uri)
        for path in cell.artifacts:
            if path.exists():
                folder.log_artifact(str(path))

    def _child(self, cell: CellRun) -> "Run":
        """The run of a cell: found as it is in the store, or created."""
        run_id = self._run_ids.get(cell.fingerprint)
        if run_id is None and cell.fingerprint in self._asked:
            # It was asked for, and the answer did not come: it may be there.
            mark = _child_of(self.run_id) | {"hgscale.fingerprint": cell.fingerprint}
            run_id = next((run.info.run_id for run in find_runs(self._client, self._experiment_id, mark)), None)
        if run_id is None:
            self._asked.add(cell.fingerprint)
            run = self._client.create_run(
                self._experiment_id,
                start_time=int(cell.start_s * 1000),
                tags=_child_of(self.run_id) | self._tags(cell) | {"hgscale.attempt": "1"},
                run_name=shortened(cell.name, MAX_NAME_LENGTH),
            )
        else:
            run = self._client.get_run(run_id)
        self._run_ids[cell.fingerprint] = run.info.run_id
        return run

    def _tags(self, cell: CellRun) -> dict[str, str]:
        tags = dict(cell.tags) | {
            "hgscale.study": self._name,
            "hgscale.fingerprint": cell.fingerprint,
            "hgscale.seed": str(cell.seed),
        }
        if cell.variant is not None:
            tags["hgscale.variant"] = cell.variant
        if cell.error is not None:
            tags["hgscale.error"] = shortened(cell.error, MAX_TAG_LENGTH)
        return tags

    def _metrics(self, cell: CellRun, run: "Run") -> list["Metric"]:
        """The points of a cell that its run does not hold."""
        points = Points.read(self._client, run)
        curves = points.of_records(cell.records)
        axes = {f"axis/{name}": value for name, value in cell.axes.items()}
        singles = single_points(axes, cell.start_s) + points.of_summary(cell.summary, cell.end_s)
        return curves + [point for point in singles if run.data.metrics.get(point.key) != point.value]

    def _end(self, status: Status) -> None:
        """Delete the runs that a server made because it was asked twice, and end the study's."""
        for run in find_runs(self._client, self._experiment_id, _child_of(self.run_id), status="RUNNING"):
            known = self._run_ids.get(run.data.tags.get("hgscale.fingerprint", ""))
            if known not in (None, run.info.run_id):
                self._client.delete_run(run.info.run_id)
        self._client.set_terminated(self.run_id, status)


def _key(directory: Path) -> str:
    """What tells this study from all others, also from one with the same grid on another machine."""
    note = directory / "tracking.json"
    if note.exists():
        return str(json.loads(note.read_text())["key"])
    key = uuid.uuid4().hex  # a name, which decides no number
    write_json(note, {"key": key})
    return key


def _child_of(run_id: str) -> dict[str, str]:
    """The tag by which MLflow knows the runs under another."""
    return {"mlflow.parentRunId": run_id}


def _only_of_each_cell(client: "MlflowClient", runs: Iterable["Run"]) -> dict[str, "Run"]:
    """The run of each cell, by fingerprint."""
    by_cell: dict[str, list[Run]] = {}
    for run in runs:
        if fingerprint := run.data.tags.get("hgscale.fingerprint"):  # otherwise it is somebody else's
            by_cell.setdefault(fingerprint, []).append(run)
    return {fingerprint: _only(client, doubles) for fingerprint, doubles in by_cell.items()}


def _only(client: "MlflowClient", doubles: Sequence["Run"]) -> "Run":
    """The run that got furthest; the others, which a server made because it was asked twice, are deleted."""
    only, *others = sorted(doubles, key=lambda run: (run.info.status == "RUNNING", -len(run.data.params)))
    for run in others:
        client.delete_run(run.info.run_id)
    return only
