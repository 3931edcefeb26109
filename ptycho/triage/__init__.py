"""Triage of a scan's frames: which are good, and what is wrong with the others. No backend is here."""
