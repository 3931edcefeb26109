"""`--skip_bad`: bad frames of triage are left out, printed in one line, and listed in the record."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.errors import InputError

if TYPE_CHECKING:
    from ptycho.scan.findings import Finding
    from ptycho.scan.raw_data import RawData


def add_triage_model(parser: Parser) -> None:
    """`--triage_model FILE`."""
    parser.add_argument(
        "--triage_model", type=Path, metavar="FILE",
        help="triage by this triage.safetensors of ptycho sweep model=triage (default: the one that ships)",
    )  # fmt: skip


def add_skip_flags(parser: Parser) -> None:
    """`--skip_bad`, `--triage_model FILE`."""
    parser.add_argument(
        "--skip_bad", action="store_true", default=False, help="leave out frames that triage calls bad"
    )
    add_triage_model(parser)


def triage_model_of(arguments: argparse.Namespace, *, used: bool) -> Path | None:
    """The given file; InputError if no other flag uses it."""
    model: Path | None = vars(arguments).get("triage_model")
    if model is not None and not used:
        raise InputError("--triage_model is used by triage only; add --triage or --skip_bad, or leave it out")
    return model


class Skipping:
    """Leaves bad frames out of the scans of one command; without --skip_bad it does nothing.

    records: file -> what was left out and why, for the record of the run. A run that goes on leaves out what
    its record names, and triage is not asked again.
    """

    def __init__(self, wanted: bool, model: Path | None, earlier: EarlierSkips | None = None) -> None:
        self.wanted, self.model, self.earlier = wanted, model, earlier
        self.records: dict[str, dict[str, Any]] = {}

    @classmethod
    def of(cls, arguments: argparse.Namespace, resumed: Path | None = None) -> Skipping:
        """From the flags; a run resumed in the folder `resumed` leaves out the same frames as before.

        InputError if it used all frames before and --skip_bad is given now, or another --triage_model.
        """
        wanted = bool(vars(arguments).get("skip_bad"))
        model: Path | None = vars(arguments).get("triage_model")
        earlier: EarlierSkips | None = None
        if resumed is not None:
            from ptycho.run.provenance import read

            record = read(resumed)
            before = bool((record or {}).get("skipped"))
            if wanted and record is not None and not before:
                raise InputError(
                    f"--skip_bad: the run in {resumed} used all frames; leave it out, or start afresh"
                )
            if record is not None and before:
                earlier = EarlierSkips(resumed, record)
                earlier.check_model(model)
            wanted = wanted or before
        return cls(wanted, triage_model_of(arguments, used=wanted), earlier)

    def __call__(self, raw: RawData, path: Path, console: Console) -> tuple[RawData, list[Finding]]:
        """The scan without its bad frames, and a note that names them. Raises DataError where too many are
        bad, InputError where the scan is not that of the record.
        """
        if not self.wanted:
            return raw, []
        import numpy as np

        from ptycho.scan.findings import Finding, name_numbers
        from ptycho.triage.decision import frames_line

        if self.earlier is not None:
            said, numbers = self.earlier.of(path, raw.n_positions)
            counts = said.get("counts")
            line = frames_line(raw.n_positions, len(numbers), counts if isinstance(counts, Mapping) else {})
            kept, how = raw.without(numbers), "left out, as the record says"
        else:
            from ptycho.workflows.triage import without_bad

            kept, found = without_bad(raw, str(path), self.model)
            said, line, how = found.as_dict(), found.line(), "left out"
            numbers = found.numbers[found.bad].tolist()
        console.say(f"triage       {path.name}: {line}{f'; {how}' if numbers else ''}")
        self.records[str(path.resolve())] = said
        if not numbers:
            return raw, []
        where = name_numbers("frame", np.asarray(numbers))
        what = f"{line}; they are left out ({where})"
        return kept, [Finding("skipped_frames", "note", where, what, "see skipped in provenance.json")]


class EarlierSkips:
    """What a run left out before, as its record says. folder: that of the run."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self.folder = folder
        self.skipped: dict[str, Any] = dict(record["skipped"])
        given = record.get("arguments")
        self.model = given.get("triage_model") if isinstance(given, Mapping) else None
        self.directory = Path(str(record.get("directory", ".")))

    def check_model(self, model: Path | None) -> None:
        """InputError for a model that is not the one of the run."""
        if model is None:
            return
        if self.model is None or model.resolve() != (self.directory / self.model).resolve():
            used = "the one that ships" if self.model is None else self.model
            raise InputError(
                f"--triage_model {model}: the run in {self.folder} left out what {used} called bad; leave it "
                "out, or start afresh"
            )

    def of(self, path: Path, n_frames: int) -> tuple[dict[str, Any], list[int]]:
        """The record of one scan and the numbers of its frames. InputError where it is of another scan."""
        same_name = [key for key in self.skipped if Path(key).name == path.name]
        key = str(path.resolve())
        key = same_name[0] if key not in self.skipped and len(same_name) == 1 else key
        where = f"{path}: the run in {self.folder}"
        if key not in self.skipped:
            others = ", ".join(Path(other).name for other in self.skipped)
            raise InputError(
                f"{where} left frames out of {others}, not of this scan; give that, or start afresh"
            )
        said = self.skipped[key]
        frames = said.get("frames") if isinstance(said, Mapping) else None
        entries: list[Any] = frames if isinstance(frames, list) else [None]
        numbers: list[Any] = [one.get("frame") if isinstance(one, Mapping) else None for one in entries]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise InputError(f"{where}: its record of frames left out is damaged; start afresh")
        known = said.get("n_frames")
        if known != n_frames:
            raise InputError(f"{where} left frames out of {known}, this scan has {n_frames}; start afresh")
        beyond = [n for n in numbers if n >= n_frames]
        if beyond:
            raise InputError(f"{where} names frame {beyond[0]}; this scan has {n_frames}; start afresh")
        return dict(said), numbers
