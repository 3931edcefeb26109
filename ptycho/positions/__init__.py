"""The network that reads misfit maps of wrong positions: settings and scans of its training. NumPy only.

The network is `ptycho_torch.refine.beliefs`, its training `ptycho_torch.positions`.
"""
