"""Runs that are composed, repeated and compared: presets, configuration groups, sweeps and their tables."""
