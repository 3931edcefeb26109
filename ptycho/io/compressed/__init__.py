"""Compressed scans: the file, the levels that counts are rounded to, and how frames are decoded.

Reading needs only NumPy and h5py, for all methods. `ptycho.codec` writes such files.
"""
