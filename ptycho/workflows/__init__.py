"""Whole jobs: which backend runs them, and the TensorFlow path's own functions."""
