"""The name under which ptychodus (1.2 to 1.7) and older scripts import the probe."""

from ptycho.clients.probe import get_probe as get_probe
from ptycho.clients.probe import set_probe_guess as set_probe_guess
