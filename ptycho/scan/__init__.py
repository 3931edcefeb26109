"""The measurement: patterns, positions, probe, their checks, units and groups."""
