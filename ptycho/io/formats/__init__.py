"""Files of other programs and beamlines: one small reader a format, found by what a file holds.

A reader answers two questions: is this file mine (`recognises`), and what does it hold (`find`). What it
finds is a `Found`: frames read by rows, positions, geometry, and so on, with None for what the file does not
say. Everything else (pairing, cropping, units) is done once, in `ptycho.io.importing`.
"""
