"""What a measurement is: patterns, positions, probe, their checks, units and groups."""
