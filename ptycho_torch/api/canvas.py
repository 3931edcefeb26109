"""Kept for scripts that import it; see `ptycho.clients.canvas`."""

from ptycho.clients.canvas import client_canvas as client_canvas
from ptycho.clients.canvas import spacing_px as spacing_px
