"""What is remembered of trainings and studies in MLflow. Only here: mlflow."""

from hgscale.tracking.entries import DataInput
from hgscale.tracking.run import Status, Tracker
from hgscale.tracking.store import SECRETS_FILE, TrackingConfig, try_store, without_password
from hgscale.tracking.study import CellRun, StudyTracker

__all__ = [
    "SECRETS_FILE",
    "CellRun",
    "DataInput",
    "Status",
    "StudyTracker",
    "Tracker",
    "TrackingConfig",
    "try_store",
    "without_password",
]
