"""Kept for scripts that import it; see `ptycho.clients.config_manager`."""

from ptycho.clients.config_manager import ConfigManager as ConfigManager
