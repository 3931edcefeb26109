"""The name under which ptychodus and older scripts know the stitching call."""

from ptycho.image.stitching import reassemble_position

__all__ = ["reassemble_position"]
