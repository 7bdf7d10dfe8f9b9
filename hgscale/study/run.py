"""The verb ``study``: run the cells that are missing, remember each as it ends, and write the report."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hgscale import config as configs
from hgscale.cluster.cells import CellJob, check_cell_room, run_cells
from hgscale.cluster.pool import Outcome
from hgscale.cluster.signals import stop_on_signal
from hgscale.errors import ConfigError, RunError
from hgscale.files import held, write_json, write_text
from hgscale.study import results
from hgscale.study.grid import Cell, StudyConfig, cells, check, label
from hgscale.study.progress import Tally
from hgscale.study.report import ReportResult, write_report
from hgscale.study.results import FAILED, FINISHED, MISSING, Row
from hgscale.tracking import CellRun, StudyTracker
from hgscale.train.runlog import read_all


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands after a call.

    Attributes:
        directory: of the study.
        rows: its cells.
        plan: what ``dry_run`` prints.
        report: tables and figures; None after a dry run.
        how_to_open: the study in MLflow.
    """

    directory: Path
    rows: list[Row]
    plan: str
    report: ReportResult | None
    how_to_open: str | None

    def text(self) -> str:
        """What the command prints."""
        return self.plan if self.report is None else f"{self.report.text()}\nmlflow        {self.how_to_open}"

    def count(self, status: str) -> int:
        """Cells that ended so."""
        return sum(row.status == status for row in self.rows)


def run_study(config: StudyConfig) -> StudyResult:
    """Run the missing cells of a study on Ray, and write its report. Interrupted, the same call goes on.

    A cell that failed in an earlier call stays FAILED unless ``retry_failed``. A grid may grow from call to call.

    Raises:
        ConfigError: if the request cannot be met; nothing has been written then.
        DataError: if a world's file is wrong.
        RunError: if cells failed; the report is written, and names them.
    """
    grid = cells(config)
    directory = config.directory
    _check_grid(directory, grid)
    rows = [results.row(directory, cell.line()) for cell in grid]
    plan = _plan_text(config, grid, rows)
    missing = [cell for cell, row in zip(grid, rows, strict=True) if _is_to_run(row, config)]
    if config.dry_run:  # which makes no data
        check([cell for cell in missing if cell.task.has_data], config.cell.num_workers)
        return StudyResult(directory, rows, plan, None, None)
    check_cell_room(config.cell, config.cluster)
    check(missing, config.cell.num_workers)
    with _alone(directory), stop_on_signal():
        tracker = _start_tracking(config, grid, directory)
        status = "FAILED"
        try:
            _write_plan(config, grid, directory)
            _ship_late(tracker, grid, directory)
            _run(missing, config, len(grid), directory, tracker)
            report = write_report(directory)
            _ship_report(tracker, report)
            rows = [results.row(directory, cell.line()) for cell in grid]
            failed = [row for row in rows if row.status == FAILED]
            status = "FAILED" if failed else "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)  # type: ignore[arg-type]
    if failed:
        first = failed[0]
        raise RunError(
            f"{len(failed)} of {len(grid)} cells failed, the first ({label(first.variant, first.axes, first.seed)}): "
            f"{first.error}; "
            f"all are named in {report.page}; --retry_failed true tries them again"
        )
    return StudyResult(directory, rows, plan, report, tracker.how_to_open())


def _is_to_run(row: Row, config: StudyConfig) -> bool:
    return row.status == MISSING or (row.status == FAILED and config.retry_failed)


# Before anything runs


def _check_grid(directory: Path, grid: Sequence[Cell]) -> None:
    """Refuse a name that is in use with another grid. A grid that grew is the same study."""
    if not (directory / "grid.jsonl").exists():
        return
    known = {cell.fingerprint for cell in grid}
    others = [row for row in results.read(directory).rows if row.cell not in known]
    if others:
        raise ConfigError(
            f"name={directory.name}: is in use with another grid: {len(others)} of its cells, such as "
            f"{label(others[0].variant, others[0].axes, others[0].seed)}, are not in this one; "
            "give another --name, or the fields it was begun with"
        )


def _alone(directory: Path) -> AbstractContextManager[None]:
    """Hold a study's directory: two schedulers would run each cell twice."""
    return held(
        directory,
        lambda reason: ConfigError(
            f"{directory}: cannot be written ({reason}); set $HGSCALE_HOME to a directory you can write to"
        ),
        f"{directory}: the study is running in another process; wait for it, or end it first",
    )


def _write_plan(config: StudyConfig, grid: Sequence[Cell], directory: Path) -> None:
    """Keep the resolved config and the grid."""
    write_text(directory / "study.yaml", configs.yaml_text(config))
    write_text(directory / "grid.jsonl", "".join(json.dumps(cell.line()) + "\n" for cell in grid))


def _plan_text(config: StudyConfig, grid: Sequence[Cell], rows: Sequence[Row]) -> str:
    """The cells, a line each: how it stands, what it costs, what it is."""
    costs = _costs(grid, rows)
    lines = [f"{'status':9} {'minutes':>8} {'steps':>8} {'samples seen':>14}  cell"]
    for cell, row, cost in zip(grid, rows, costs, strict=True):
        seen = cell.task.train.num_steps * cell.task.train.global_batch
        minutes = "-" if cost is None else f"{cost / 60:.2f}"
        lines.append(f"{row.status:9} {minutes:>8} {cell.task.train.num_steps:>8,} {seen:>14,}  {cell.label}")
    to_run = [cost for row, cost in zip(rows, costs, strict=True) if _is_to_run(row, config)]
    known = [cost for cost in to_run if cost is not None]
    left = f", about {sum(known) / 60:.1f} minutes of work" if known else ""
    unknown = (
        f" ({len(to_run) - len(known)} not known before a cell like them has run)" if len(known) < len(to_run) else ""
    )
    done = sum(row.status == FINISHED for row in rows)
    failed = sum(row.status == FAILED for row in rows)
    lines.append(f"{len(rows)} cells: {done} finished, {failed} failed, {len(to_run)} to run{left}{unknown}")
    return "\n".join(lines)


def _costs(grid: Sequence[Cell], rows: Sequence[Row]) -> list[float | None]:
    """Seconds of each cell: its own, else the mean of the point's other seeds, else by steps from its variant's."""
    same_point: dict[str, list[float]] = {}
    per_step: dict[str | None, list[float]] = {}
    for row in rows:
        if seconds := row.summary.get("seconds"):
            same_point.setdefault(_point_key(row.variant, row.axes), []).append(seconds)
            per_step.setdefault(row.variant, []).append(seconds / row.summary["num_steps"])
    costs: list[float | None] = []
    for cell, row in zip(grid, rows, strict=True):
        if known := row.summary.get("seconds"):
            costs.append(known)
        elif others := same_point.get(_point_key(cell.variant, cell.axes)):
            costs.append(sum(others) / len(others))
        elif rates := per_step.get(cell.variant):
            costs.append(cell.task.train.num_steps * sum(rates) / len(rates))
        else:
            costs.append(None)
    return costs


def _point_key(variant: str | None, axes: Mapping[str, Any]) -> str:
    return json.dumps([variant, axes], sort_keys=True)


# Running


def _run(missing: Sequence[Cell], config: StudyConfig, num_cells: int, directory: Path, tracker: StudyTracker) -> None:
    if not missing:
        return
    by_key = {cell.fingerprint: cell for cell in missing}
    jobs = [
        CellJob(cell.fingerprint, cell.task, config.trained.work, directory / "cells" / cell.fingerprint)
        for cell in missing
    ]
    tally = Tally(num_cells, num_cells - len(missing))
    progress = tally.progress
    progress.say(f"study {directory.name}: {len(missing)} of {num_cells} cells to run; {directory}")
    commit = results.commit()

    def end(outcome: Outcome) -> None:
        cell = by_key[outcome.key]
        _write_end(directory, outcome, commit)
        tracker.ship(_cell_run(cell, directory))
        tally.ended(outcome.error is not None)
        if outcome.error is not None:
            progress.say(f"cell failed: {cell.label}: {outcome.error}")

    try:
        run_cells(jobs, config.cell, config.cluster, on_end=end, on_tick=tally.tick)
    finally:
        progress.close()


def _write_end(directory: Path, outcome: Outcome, commit: str | None) -> None:
    """Write ``cell.json``: how a cell ended. From then on it is not run again."""
    folder = directory / "cells" / outcome.key
    folder.mkdir(parents=True, exist_ok=True)
    summary = json.loads((folder / "summary.json").read_text()) if outcome.error is None else {}
    # Not known of a cell that went on from an earlier try: its training is of all tries, the seconds of the last.
    overhead_s = outcome.seconds - summary["train_s"] if summary and outcome.seconds > summary["train_s"] else None
    end = {
        "cell": outcome.key,
        "status": FINISHED if outcome.error is None else FAILED,
        "error": None if outcome.error is None else str(outcome.error),
        "attempts": outcome.attempts,
        "seconds": outcome.seconds,
        "overhead_s": overhead_s,
        "commit": commit,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    write_json(folder / "cell.json", end)


# Remembering


def _start_tracking(config: StudyConfig, grid: Sequence[Cell], directory: Path) -> StudyTracker:
    # Where a study is remembered is not part of what it is, and an address may hold a password.
    sections = {name: value for name, value in configs.to_dict(config).items() if name not in ("tracking", "dry_run")}
    return StudyTracker.start(
        config.tracking,
        directory=directory,
        name=directory.name,
        fingerprint=configs.fingerprint({"cells": sorted(cell.fingerprint for cell in grid)}),
        params={name: str(value) for name, value in configs.flatten(sections).items()},
        tags={"hgscale.verb": "study", "hgscale.directory": str(directory)},
    )


def _ship_late(tracker: StudyTracker, grid: Sequence[Cell], directory: Path) -> None:
    """Send cells that ended in an earlier call and are not in the store."""
    if tracker.run_id is None:
        return
    there = tracker.shipped()
    for cell in grid:
        row = results.row(directory, cell.line())
        if row.status != MISSING and there.get(cell.fingerprint) != row.status:
            tracker.ship(_cell_run(cell, directory))


def _cell_run(cell: Cell, directory: Path) -> CellRun:
    """What MLflow is to remember of a cell that ended."""
    folder = directory / "cells" / cell.fingerprint
    end = json.loads((folder / "cell.json").read_text())
    row = results.row(directory, cell.line())
    end_s = datetime.fromisoformat(end["finished"]).timestamp()
    data = cell.task.data_input(row.summary) if row.summary else None
    return CellRun(
        fingerprint=cell.fingerprint,
        name=cell.label,
        status=row.status,  # type: ignore[arg-type]
        start_s=end_s - end["seconds"],
        end_s=end_s,
        seed=cell.seed,
        variant=cell.variant,
        axes=cell.axes,
        params=configs.flatten(configs.to_dict(cell.task)),
        tags={"hgscale.run_dir": str(folder), "hgscale.attempts": str(end["attempts"])},
        summary=row.summary,
        records=read_all(folder / "log.jsonl") if (folder / "log.jsonl").exists() else (),
        data=data,
        artifacts=[folder / "summary.json", folder / "config.yaml"],
        error=row.error,
    )


def _ship_report(tracker: StudyTracker, report: ReportResult) -> None:
    """Put the fit, the table and the figures on the study's own run."""
    tracker.log_metrics(report.metrics)
    tracker.describe(report.said)
    for path in [report.table_md, report.table_csv, report.fits_json, report.page, *report.figures]:
        tracker.log_artifact(path)
