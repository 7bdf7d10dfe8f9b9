"""What a run holds, in the words that MLflow takes: names, params, points of curves, the world."""

import json
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

# MLflow's own limits (mlflow/utils/validation.py of 3.17).
MAX_NAME_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_DIGEST_LENGTH = 36

LOWER_IS_BETTER = ("loss", "l1", "recovery_l1", "ratio_to_floor")
HIGHER_IS_BETTER = ("accuracy", "f1", "ari")
"""Last parts of the names of metrics whose best value over the run is logged as ``best/<name>``."""

_NO_CURVES = ("final/", "best/", "axis/")


class Points:
    """Which points of a run's metrics are still to be sent, and the best value of each so far.

    Per metric only steps beyond the last one are sent, in whichever attempt: no step is there twice.
    """

    def __init__(self) -> None:
        self._last_step: dict[str, int] = {}
        self._best: dict[str, float] = {}

    @staticmethod
    def read(client: "MlflowClient", run: "Run") -> "Points":
        """As the store has them: one question per metric. Raises what MLflow raises."""
        points = Points()
        for metric in run.data.metrics:
            if not metric.startswith(_NO_CURVES):
                for point in client.get_metric_history(run.info.run_id, metric):
                    points._note(point.key, point.step, point.value)
        return points

    def of_records(self, records: Iterable[Mapping[str, Any]]) -> list["Metric"]:
        """The new points in records of ``log.jsonl``; what is not a number is left out."""
        from mlflow.entities import Metric

        points = []
        for record in records:
            step, time_ms = record["step"], int(record["time"] * 1000)
            for raw_name, value in record.items():
                name = allowed_name(raw_name)
                if raw_name in ("step", "time") or not is_number(value) or step <= self._last_step.get(name, -1):
                    continue
                self._note(name, step, value)
                # The time is the record's own: a batch that arrived although its answer was lost changes nothing
                # when it is sent again.
                points.append(Metric(name, float(value), time_ms, step))
        return points

    def of_summary(self, summary: Mapping[str, Any], time_s: float) -> list["Metric"]:
        """The numbers of a summary as ``final/*``, and the best of all curves as ``best/*``, at the last step."""
        values = {f"final/{name}": value for name, value in summary.items()}
        values |= {f"best/{name}": value for name, value in self._best.items()}
        return single_points(values, time_s, max(self._last_step.values(), default=0))

    def _note(self, name: str, step: int, value: float) -> None:
        """Remember that a point is on its way, or was there before."""
        self._last_step[name] = max(step, self._last_step.get(name, -1))
        last_part = name.rsplit("/", 1)[-1]
        better = min if last_part in LOWER_IS_BETTER else max if last_part in HIGHER_IS_BETTER else None
        if better and value == value:  # a value that is not a number is no best
            self._best[name] = better(value, self._best.get(name, value))


def single_points(values: Mapping[str, Any], time_s: float, step: int = 0) -> list["Metric"]:
    """One point for each value that is a number."""
    from mlflow.entities import Metric

    return [
        Metric(allowed_name(name), float(value), int(time_s * 1000), step)
        for name, value in values.items()
        if is_number(value)
    ]


class DataInput(NamedTuple):
    """What tells the data of a run from others, as a world or the texts of a task.

    Attributes:
        name: what kind of data it is.
        digest: of its content, at most 36 characters.
        profile: its counts, by name.
        source: the file or the generator it came from.
    """

    name: str
    digest: str
    profile: Mapping[str, int]
    source: str


def dataset_input(data: DataInput) -> "DatasetInput":
    """The same in MLflow's words."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.name,
        digest=data.digest[:MAX_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {f"hgscale.{data.name}": data.source}}),
        profile=json.dumps(dict(data.profile)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def allowed_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Params with names and values that MLflow takes."""
    return {allowed_name(name): shortened(str(value), MAX_PARAM_LENGTH) for name, value in params.items()}


def changed_params(run: "Run", params: Mapping[str, str], attempt: int) -> dict[str, str]:
    """Params that differ from the run's, as tags ``hgscale.attempt.<k>.<param>``: MLflow never changes a param."""
    known = run.data.params
    return {
        f"hgscale.attempt.{attempt}.{name}": value for name, value in params.items() if known.get(name, value) != value
    }


def log_missing(
    client: "MlflowClient",
    run: "Run",
    params: Mapping[str, str],
    tags: Mapping[str, str],
    metrics: Iterable["Metric"] = (),
) -> None:
    """Log metrics, and the params and tags that the run, as read, does not hold; MLflow splits what is too much."""
    from mlflow.entities import Param, RunTag

    new_params = [Param(name, value) for name, value in params.items() if name not in run.data.params]
    new_tags = [
        RunTag(name, shortened(value, MAX_TAG_LENGTH))
        for name, value in tags.items()
        if run.data.tags.get(name) != value
    ]
    client.log_batch(run.info.run_id, metrics=list(metrics), params=new_params, tags=new_tags)


def allowed_name(name: str) -> str:
    """A name that MLflow takes on any system: letters, digits, ``_ - . /``, and a path that is its own normal form."""
    parts = re.sub(r"[^A-Za-z0-9_\-./]", "_", name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:MAX_NAME_LENGTH]


def shortened(text: str, length: int) -> str:
    """A text cut to a length, with three dots where something is missing."""
    return text if len(text) <= length else text[: length - 3] + "..."


def is_number(value: Any) -> bool:
    """Whether MLflow can draw it; True and False are no numbers."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
