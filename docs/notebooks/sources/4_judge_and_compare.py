# %% [markdown]
# # Judge and compare
#
# Is the image right? Which of two is better? With a truth, and without one.

# %%
from ptycho.simulation import Scenario, simulate
from ptycho_torch.refine import reconstruct

made = simulate(Scenario(N=64, n_positions=100, step_px=6.0, photons=1e5, seed=5))
short = reconstruct(made.raw, epochs=3, start="flat", levels=1, prior="none")
long = reconstruct(made.raw, epochs=20)
print(f"R {short.r:.4f} after 3 sweeps from nothing, {long.r:.4f} after 20 from a coarse start")

# %% [markdown]
# **R** compares the patterns that the image predicts with the measured ones. It needs no truth, and it is no proof: with few
# photons an image can fit the noise. R depends on the scan: compare it between images of one scan only.
#
# **Against a truth** there are stricter numbers. Scale, ramp and shift are removed first.

# %%
from ptycho.evaluation import evaluate

for name, image in (("short", short), ("long", long)):
    judged = evaluate(
        image.object, made.object_true, made.roi, origin_xy=image.origin_xy, coverage=image.coverage
    )
    print(f"{name:<6} complex NRMSE {judged.nrmse:.3f}   phase SSIM {judged.phase_ssim:.3f}   "
          f"FRC 0.5 at {judged.frc50:.2f} of Nyquist")  # fmt: skip

# %%
from ptycho.report.showing import draw_reconstruction

draw_reconstruction(long.object, made.object_true, long.coverage, metrics=judged)

# %% [markdown]
# **Where does it disagree?** R of every pattern at its place: a bright corner is a drifting sample or a wrong position.

# %%
from ptycho.report.drawing_scan import draw_r_map

draw_r_map(long.positions_xy, long.r_map, long.r)

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
from ptycho_torch.refine.product import save_result

made.to_npz("scan.npz")
for name, image in (("short", short), ("long", long)):
    save_result(image, name)
page = write_report("both.html", [Path("short"), Path("long")], data=Path("scan.npz"))
print(f"{page}: {page.stat().st_size / 1e3:.0f} kB, open it in a browser")
