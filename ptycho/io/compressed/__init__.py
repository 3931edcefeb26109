"""Compressed scans: the file, the levels that counts are rounded to, and how frames are decoded.

Reading needs NumPy and h5py only, whatever the method. What makes such a file is `ptycho.codec`.
"""
