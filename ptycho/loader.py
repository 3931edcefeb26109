"""The name under which ptychodus (1.2 to 1.7) and older scripts import grouped data."""

from ptycho.clients.loading import PtychoDataContainer as PtychoDataContainer
from ptycho.clients.loading import load as load
