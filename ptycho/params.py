"""The name under which ptychodus (1.2 to 1.7) and older scripts import the legacy dictionary."""

from ptycho.clients.params import cfg as cfg
from ptycho.clients.params import get as get
from ptycho.clients.params import params as params
from ptycho.clients.params import set as set
