"""The network that ships: the simulated scans it is trained on, and the command that trains it."""
