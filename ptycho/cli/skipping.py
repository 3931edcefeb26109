"""`--skip_bad`: bad frames of triage are left out, printed in one line, and listed in the record."""

from __future__ import annotations

import argparse
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

    records: file -> what was left out and why, for the record of the run.
    """

    def __init__(self, wanted: bool, model: Path | None) -> None:
        self.wanted, self.model = wanted, model
        self.records: dict[str, dict[str, Any]] = {}

    @classmethod
    def of(cls, arguments: argparse.Namespace, resumed: Path | None = None) -> Skipping:
        """From the flags; a run resumed in the folder `resumed` leaves out the same frames as before.

        InputError if it used all frames before and --skip_bad is given now.
        """
        wanted = bool(vars(arguments).get("skip_bad"))
        if resumed is not None:
            from ptycho.run.provenance import read

            record = read(resumed)
            before = bool((record or {}).get("skipped"))
            if wanted and record is not None and not before:
                raise InputError(
                    f"--skip_bad: the run in {resumed} used all frames; leave it out, or start afresh"
                )
            wanted = wanted or before
        return cls(wanted, triage_model_of(arguments, used=wanted))

    def __call__(self, raw: RawData, path: Path, console: Console) -> tuple[RawData, list[Finding]]:
        """The scan without its bad frames, and a note that names them. Raises DataError where too many are
        bad.
        """
        if not self.wanted:
            return raw, []
        from ptycho.scan.findings import Finding, name_numbers
        from ptycho.workflows.triage import without_bad

        kept, found = without_bad(raw, str(path), self.model)
        console.say(f"triage       {path.name}: {found.line()}{'; left out' if found.bad.any() else ''}")
        self.records[str(path.resolve())] = found.as_dict()
        if not found.bad.any():
            return raw, []
        numbers = found.numbers[found.bad]
        what = f"{found.line()}; they are left out ({name_numbers('frame', numbers)})"
        note = Finding(
            "skipped_frames", "note", name_numbers("frame", numbers), what, "see skipped in provenance.json"
        )
        return kept, [note]
