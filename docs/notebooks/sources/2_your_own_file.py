# %% [markdown]
# # Your own file
#
# From a beamline's HDF5 to an image in micrometres. The file is written here first, as a beamline might: frames, stage
# positions in micrometres, and nothing in the place where another program would look for it.

# %%
from pathlib import Path

import h5py
import numpy as np

import ptychopinn as pp

made = pp.simulate(N=64, n_positions=100, step_px=6.0, photons=1e6, seed=3)
energy_eV, distance_m, pixel_m = 8800.0, 2.0, 75e-6
wavelength_m = 1.239841984e-6 / energy_eV
object_pixel_um = wavelength_m * distance_m / (64 * pixel_m) * 1e6

Path("scan.h5").unlink(missing_ok=True)  # of an earlier pass through this notebook
with h5py.File("run_0042.h5", "w") as file:
    file["beamline/eiger/frames"] = made.raw.diff3d.astype(np.uint32)
    for axis, values in (("x", made.raw.xcoords), ("y", made.raw.ycoords)):
        stage = file.create_dataset(f"beamline/stage/{axis}", data=values * object_pixel_um)
        stage.attrs["units"] = "um"

# %% [markdown]
# **Look first.** `--dry_run` says what would be read, and what is missing; nothing is written.

# %% [shell]
# ptycho import run_0042.h5 --dry_run --set path.frames=/beamline/eiger/frames path.positions_x=/beamline/stage/x path.positions_y=/beamline/stage/y energy_eV=8800 distance_m=2.0 detector_pixel_size_m=75e-6

# %% [markdown]
# **Then write one file** that every command reads.

# %% [shell]
# ptycho import run_0042.h5 -o scan.h5 --set path.frames=/beamline/eiger/frames path.positions_x=/beamline/stage/x path.positions_y=/beamline/stage/y energy_eV=8800 distance_m=2.0 detector_pixel_size_m=75e-6

# %%
scan = pp.open("scan.h5")
print(scan)
scan.plot()

# %% [markdown]
# The file held no probe: one was made from the patterns. **Check the scan** before you believe an image of it; every line
# says what it is, where, and the remedy.

# %%
for finding in scan.raw.check():
    print(f"{finding.severity}: {finding}")

# %% [markdown]
# **The image, in micrometres.** The probe was only a guess, so a few more sweeps are needed than for a good one.

# %%
image = pp.reconstruct(scan, sweeps=25)
image.plot()
