"""Triage of frames by a small network: its layers, its training, its export."""
