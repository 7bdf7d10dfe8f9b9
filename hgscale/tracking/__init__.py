"""What is remembered of trainings and studies in MLflow. Only here: mlflow."""

from hgscale.tracking.run import Status, Tracker
from hgscale.tracking.store import TrackingConfig, try_store
from hgscale.tracking.study import CellRun, StudyTracker, WorldInput

__all__ = ["CellRun", "Status", "StudyTracker", "Tracker", "TrackingConfig", "WorldInput", "try_store"]
