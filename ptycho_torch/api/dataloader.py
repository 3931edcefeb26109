"""Kept for scripts that import it; see `ptycho.clients.dataloader`."""

from ptycho.clients.dataloader import DataloaderFormats as DataloaderFormats
from ptycho.clients.dataloader import PtychoDataLoader as PtychoDataLoader
