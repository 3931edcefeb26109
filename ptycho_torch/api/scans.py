"""Kept for scripts that import it; see `ptycho.clients.scans`."""

from ptycho.clients.scans import Scans as Scans
from ptycho.clients.scans import extent as extent
from ptycho.clients.scans import scan_from_arrays as scan_from_arrays
from ptycho.clients.scans import scan_from_file as scan_from_file
from ptycho.clients.scans import scans_from_folder as scans_from_folder
from ptycho.clients.scans import without_mean_phase as without_mean_phase
from ptycho.clients.scans import without_probe_ramp as without_probe_ramp
