"""The trainer of the PyTorch backend: Lightning, its callbacks, and the checkpoints of a run."""
