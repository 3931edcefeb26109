# %% [markdown]
# # Judge and compare
#
# Is the image right? Which of two is better? With a truth, and without one.

# %%
import ptychopinn as pp

scan = pp.simulate(N=64, n_positions=100, step_px=6.0, photons=1e5, seed=5)
short = pp.reconstruct(scan, sweeps=3, start="flat", levels=1, prior="none")
long = pp.reconstruct(scan, sweeps=20)
print(f"R {short.r_factor:.4f} after 3 sweeps from nothing, {long.r_factor:.4f} after 20 from a coarse start")

# %% [markdown]
# **R** compares the patterns that the image predicts with the measured ones. It needs no truth, and it is no proof: with few
# photons an image can fit the noise. R depends on the scan: compare it between images of one scan only.
#
# **Against a truth** there are stricter numbers. Scale, ramp and shift are removed first.

# %%
from ptycho.evaluation import evaluate

for name, image in (("short", short), ("long", long)):
    lit = image.coverage > 0.2 * image.coverage.max()
    judged = evaluate(image.object, scan.truth, origin_xy=image.origin_xy, coverage=lit)
    print(f"{name:<6} complex NRMSE {judged.nrmse:.3f}   phase SSIM {judged.phase_ssim:.3f}   "
          f"FRC 0.5 at {judged.frc50:.2f} of Nyquist")  # fmt: skip

# %%
from ptycho.report.showing import draw_reconstruction

draw_reconstruction(long.object, scan.truth, metrics=judged)

# %% [markdown]
# **Where does it disagree?** R of every pattern at its place: a bright corner is a drifting sample or a wrong position.

# %%
from ptycho.report.drawing_scan import draw_r_map

draw_r_map(long.positions_px, long.result.r_map, long.r_factor)

# %% [markdown]
# **Resolution**: the Fourier ring correlation with the truth, and where it falls below its thresholds.

# %%
from ptycho.report.drawing import draw_frc

draw_frc(judged.frc_curve)

# %% [markdown]
# **One page to pass on.** Two run folders side by side, with sliders between their images.

# %%
from pathlib import Path

from ptycho.report.html import write_report

Path("scan.npz").unlink(missing_ok=True)  # of an earlier pass through this notebook
scan.save("scan.npz")
page = write_report("both.html", [short.save("short"), long.save("long")], data=Path("scan.npz"))
print(f"{page}: {page.stat().st_size / 1e3:.0f} kB, open it in a browser")
