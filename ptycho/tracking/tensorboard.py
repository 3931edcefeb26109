"""Event files under `logs/` for `tensorboard --logdir`: metrics, figures, settings as text.

The package tensorboard alone is needed: neither torch's nor TensorFlow's writer is loaded for it.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ptycho.errors import MissingDependencyError
from ptycho.io.aside import earlier_name
from ptycho.io.atomic import atomic_write
from ptycho.tracking.histograms import Histogram
from ptycho.tracking.tracker import Tracker

_PATTERN = "events.out.tfevents.*"
_WIDTH_AND_HEIGHT = struct.Struct(">II")


class TensorBoardTracker(Tracker):
    """A point a metric and epoch, at the optimiser's step. Memory: nothing is held back."""

    name = "tensorboard"

    def __init__(self, output_dir: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise MissingDependencyError(
                "--logger tensorboard needs the package tensorboard: pip install 'ptychopinn[tensorboard]'"
            ) from error
        self._event, self._record_writer = event_pb2.Event, RecordWriter
        self._summary, self._tensor, self._types = summary_pb2, tensor_pb2, types_pb2
        self._folder = output_dir / "logs"
        self._path = self._folder

    def begin(self, first_epoch: int, first_step: int, params: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(self._folder.glob(_PATTERN))
        kept: list[bytes] = []
        if first_epoch == 0:
            _set_aside(self._folder, earlier)
        else:
            kept = [data for path in earlier for data in read_records(path) if self._before(data, first_step)]
        new = self._folder / f"events.out.tfevents.{int(time.time())}.ptychopinn"
        self._path = earlier[0] if kept else new
        if not kept:
            kept = [self._event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()]
            kept.append(self._settings(params))
        with atomic_write(self._path) as temporary, temporary.open("wb") as file:
            writer = self._record_writer(file)
            for data in kept:
                writer.write(data)
        for path in earlier if first_epoch else ():
            if path != self._path:
                path.unlink()

    def log_metrics(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        Value = self._summary.Summary.Value
        points = [Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write([*points, Value(tag="epoch", simple_value=epoch)], step)

    def log_figure(self, path: Path, step: int) -> None:
        data = path.read_bytes()
        width, height = _WIDTH_AND_HEIGHT.unpack_from(data, 16)
        image = self._summary.Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=data
        )
        tag = "figures/" + re.sub(r"_\d+$", "", path.stem)
        self._write([self._summary.Summary.Value(tag=tag, image=image)], step)

    def log_histograms(self, values: Mapping[str, Histogram], step: int) -> None:
        self._write([self._histogram(name, found) for name, found in values.items()], step)

    def _histogram(self, name: str, found: Histogram) -> Any:
        made = self._summary.HistogramProto(
            min=found.edges[0], max=found.edges[-1], num=float(found.counts.sum()), sum=found.total,
            sum_squares=found.squares, bucket_limit=found.edges[1:].tolist(), bucket=found.counts.tolist(),
        )  # fmt: skip
        return self._summary.Summary.Value(tag=name, histo=made)

    def _write(self, values: list[Any], step: int) -> None:
        event = self._event(wall_time=time.time(), step=step, summary=self._summary.Summary(value=values))
        with self._path.open("ab") as file:
            self._record_writer(file).write(event.SerializeToString())

    def _before(self, data: bytes, first_step: int) -> bool:
        event = self._event.FromString(data)
        return bool(event.step < first_step)

    def _settings(self, params: Mapping[str, Any]) -> bytes:
        """The settings as a Markdown table on TensorBoard's page of texts."""
        rows = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in params.items()]
        text = "\n".join(["| setting | value |", "|---|---|", *rows])
        tensor = self._tensor.TensorProto(dtype=self._types.DT_STRING, string_val=[text.encode()])
        tensor.tensor_shape.dim.add(size=1)
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text")
        )
        value = self._summary.Summary.Value(tag="settings", tensor=tensor, metadata=metadata)
        made = self._event(wall_time=time.time(), step=0, summary=self._summary.Summary(value=[value]))
        data: bytes = made.SerializeToString()
        return data


def read_records(path: Path) -> Iterator[bytes]:
    """The records of an event file (TFRecord: length, checksum, data, checksum); a torn end is no record."""
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", head)
            data = file.read(length + 4)
            if len(data) < length + 4:
                return
            yield data[:length]


def _set_aside(folder: Path, earlier: list[Path]) -> None:
    """Move the events of an earlier run into a folder, which TensorBoard shows as a run of its own."""
    if earlier:
        aside = earlier_name(folder / "earlier")
        aside.mkdir()
        for path in earlier:
            path.rename(aside / path.name)
