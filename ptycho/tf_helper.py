"""The name under which ptychodus and older scripts know the stitching call."""

from ptycho.clients.reassembly import reassemble_position

__all__ = ["reassemble_position"]
