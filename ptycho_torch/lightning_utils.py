"""Kept for ptychodus, which imports it; see `ptycho.clients.checkpoints`."""

from ptycho.clients.checkpoints import find_best_checkpoint as find_best_checkpoint
