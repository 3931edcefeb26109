"""What is minimised and what is watched, declared in configuration; each backend computes the terms."""
