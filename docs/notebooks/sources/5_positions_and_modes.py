# %% [markdown]
# # Refine positions and modes
#
# A stage is never quite where it says, and a beam is never quite coherent. Both can be solved for, with the image.

# %%
import numpy as np

import ptychopinn as pp

made = pp.simulate(N=64, n_positions=81, step_px=6.0, photons=1e6, n_modes=2, seed=11)
true_xy = made.raw.positions_px
wrong_xy = true_xy + np.random.default_rng(1).normal(0, 0.8, true_xy.shape)
scan = made.raw.moved_to(wrong_xy).with_probe(made.raw.probe_modes[0])

# %% [markdown]
# The scan now says positions that are wrong by 0.8 px in each direction, and knows one mode of two.

# %%
plain = pp.reconstruct(scan, sweeps=15)
better = pp.reconstruct(scan, sweeps=25, positions="free", modes=2)
print(f"R {plain.r_factor:.4f} as the file says; {better.r_factor:.4f} with two modes and free positions")

# %%
from ptycho.report.showing import draw_reconstruction

draw_reconstruction(plain.object, coverage=plain.coverage, title=f"as the file says: R {plain.r_factor:.4f}")

# %%
draw_reconstruction(
    better.object, coverage=better.coverage, title=f"positions and modes: R {better.r_factor:.4f}"
)

# %% [markdown]
# **Where the positions went.** The arrows run from what the file said to what was found; the movement that all share is
# taken off, for an image may lie anywhere.

# %%
from ptycho.report.drawing_scan import draw_moved

draw_moved(scan.positions_px, better.positions_px)


# %%
def error_px(found: np.ndarray) -> float:
    """Root mean square distance from the truth, px, less the movement that all share."""
    off = found - true_xy
    return float(np.sqrt(np.mean(np.sum((off - off.mean(0)) ** 2, axis=1))))


print(f"positions wrong by {error_px(wrong_xy):.2f} px before, {error_px(better.positions_px):.2f} px after")

# %% [markdown]
# **The modes**, each with its share of the power. A mode of a few per cent may be noise: look whether R of held-out
# patterns fell too (`ptycho reconstruct` prints it).

# %%
from ptycho.report.showing import draw_probe

draw_probe(better.probe)
