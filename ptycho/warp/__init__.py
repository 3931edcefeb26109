"""Registration of two images of the same object: warps, their score, and positions moved by them. NumPy only.

The fit of a warp to two images is in `ptycho_torch.warp`. `settings` loads nothing, so that the command line
can name the kinds of warp at once.
"""
