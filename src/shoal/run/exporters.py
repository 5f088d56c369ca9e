"""Exporters: TensorBoard's events, Weights & Biases, trackio and MLflow, as metrics are sent to them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shoal.run.reading import check_folder, leaves
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoal.run.exporting import Exporter, Sent

FLUSH_S = 10.0
"""Seconds after which TensorBoard sees what was written."""
PROJECT = "shoal"
MLFLOW_URI = "MLFLOW_TRACKING_URI"
"""The environment variable by which MLflow's users name their server or database."""
MOST_METRICS, MOST_PARAMETERS, PARAMETER = 1000, 100, 500
"""What MLflow takes in one call, and the letters of a parameter."""


def exporter_of(
    kind: str, *, name: str, config: dict[str, Any], root: Path
) -> Exporter:
    """The exporter of a name: wandb, trackio or mlflow.

    Args:
        kind: the name.
        name: what the run is called there.
        config: its settings.
        root: the folder of runs, where MLflow's database is unless the environment names another.

    Raises:
        ConfigError: its package is not installed, or MLflow is to write into files.
    """
    if not _is_installed(kind):
        raise ConfigError(f"{kind} is not installed: pip install 'shoal-rl[{kind}]'")
    if kind != "mlflow":
        return Tracker(kind, name=name, config=config)
    uri = os.environ.get(MLFLOW_URI) or f"sqlite:///{root.absolute() / 'mlflow.db'}"
    if urlsplit(uri).scheme in ("", "file"):
        raise ConfigError(
            f"MLflow keeps runs in a database or on a server, no longer in files: set {MLFLOW_URI} to "
            f"sqlite:///mlflow.db or http://HOST:PORT, or unset it; it is {uri!r}"
        )
    return MLflow(uri, name=name, config=config)


def _is_installed(module: str) -> bool:
    """Whether a package can be imported, without importing it."""
    known: dict[str, Any] = sys.modules  # None where it may not be imported
    if module in known:
        return known[module] is not None
    return importlib.util.find_spec(module) is not None


class TensorBoard:
    """TensorBoard's event files in the run directory."""

    name = "TensorBoard"

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        """Makes the folder.

        Args:
            directory: where the events are.
            purge_step: events from this step on are dropped, as a resumed run writes them again.

        Raises:
            ConfigError: the folder is a link.
        """
        check_folder(directory)
        directory.mkdir(exist_ok=True)
        self._directory, self._purge_step = directory, purge_step
        self._events: Any = None
        self._writer: Any = None
        self._summary: Any = None
        self._flushed = time.monotonic()

    def begin(self) -> None:
        """Opens a new file."""
        from tensorboardX.event_file_writer import EventsWriter  # pyright: ignore[reportMissingTypeStubs]

        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        summaries: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
        self._summary = summaries.Summary
        number = len(list(self._directory.iterdir()))
        # A name that nobody can foresee: no link can wait there.
        suffix = f".{secrets.token_hex(8)}.{number}"
        self._writer = EventsWriter(str(self._directory / "events"), suffix)
        if self._purge_step is not None:
            session = self._events.SessionLog
            start = self._events.Event(
                step=self._purge_step,
                wall_time=time.time(),
                session_log=session(status=session.START),
            )
            self._writer.write_event(start)

    def write(self, lines: Sequence[Sent]) -> None:
        """Adds an event for each line, with a scalar for each number."""
        for step, values, written_s in lines:
            scalars = [
                self._summary.Value(tag=name, simple_value=value)
                for name, value in values.items()
            ]
            summary = self._summary(value=scalars)
            event = self._events.Event(step=step, wall_time=written_s, summary=summary)
            self._writer.write_event(event)
        if time.monotonic() - self._flushed > FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def end(self) -> None:
        """Flushes; the file is closed even where that fails."""
        try:
            self._writer.flush()
        finally:
            self._writer._py_recordio_writer.close()


class Tracker:
    """Weights & Biases or trackio, which share one interface."""

    def __init__(self, kind: str, *, name: str, config: dict[str, Any]) -> None:
        """Imports nothing."""
        self.name = kind
        self._run, self._config = name, config
        self._module: Any = None

    def begin(self) -> None:
        """Imports the library and begins a run there."""
        self._module = importlib.import_module(self.name)
        self._module.init(project=PROJECT, name=self._run, config=self._config)

    def write(self, lines: Sequence[Sent]) -> None:
        """Logs the numbers of each line at its step."""
        for step, values, _ in lines:
            self._module.log(values, step=step)

    def end(self) -> None:
        """Ends the tracked run."""
        self._module.finish()


class MLflow:
    """MLflow, through its client: nothing of it is global, so that several runs can be in one process."""

    name = "mlflow"

    def __init__(self, uri: str, *, name: str, config: dict[str, Any]) -> None:
        """Imports nothing."""
        self._uri, self._run_name, self._config = uri, name, config
        self._client: Any = None
        self._entities: Any = None
        self._run = ""

    def begin(self) -> None:
        """Imports the library, begins a run there, and writes its settings."""
        mlflow: Any = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        self._client = mlflow.MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(PROJECT)
        if found is None:
            place = self._client.create_experiment(PROJECT)
        else:
            place = found.experiment_id
        begun = self._client.create_run(place, run_name=self._run_name)
        self._run = begun.info.run_id
        settings = {
            mlflow_name(name): str(value)[:PARAMETER]
            for name, value in leaves(self._config)
            if value is not None
        }
        parameter = self._entities.Param
        made = [parameter(name, value) for name, value in settings.items()]
        for at in range(0, len(made), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=made[at : at + MOST_PARAMETERS])

    def write(self, lines: Sequence[Sent]) -> None:
        """Logs the numbers of all lines, in as few calls as MLflow allows."""
        metric = self._entities.Metric
        made = [
            metric(mlflow_name(name), value, round(1000 * line.written_s), line.step)
            for line in lines
            for name, value in line.values.items()
        ]
        for at in range(0, len(made), MOST_METRICS):
            self._client.log_batch(self._run, metrics=made[at : at + MOST_METRICS])

    def end(self) -> None:
        """Ends the tracked run."""
        self._client.set_terminated(self._run)


def mlflow_name(name: str) -> str:
    """A name as MLflow allows it: letters, digits and few signs, and a path that stays where it is."""
    kept = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    parts = [part if part.strip(". ") else "_" for part in kept.split("/")]
    return "/".join(parts)[:250]
