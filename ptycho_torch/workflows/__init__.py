"""Whole jobs on the PyTorch path: train, reconstruct, save, load."""
