"""Training of the network of `ptycho_torch.refine.beliefs`: misfit maps from searches, and the task."""
