# %% [markdown]
# # Ten lines to an image
#
# A scan, an image, and how good it is. Everything runs on one core in a few seconds.
#
# The scan is simulated here, so that the right answer is known. For a file of your own see *Your own file*.

# %%
import ptychopinn as pp

scan = pp.simulate(N=64, n_positions=100, step_px=6.0, photons=1e6)
scan.plot()

# %% [markdown]
# Left: every dot is one pattern, its colour the counts in it. Middle: the mean pattern on a logarithmic scale. Right: the
# probe that the reconstruction starts from; it need not be right.

# %%
image = pp.reconstruct(scan, sweeps=15)
image.plot()

# %% [markdown]
# Amplitude, phase, and both as one colour: the hue is the phase, once round the disc, and the lightness the amplitude.
# Pixels that hardly any light reached are left out. An image by itself shows its numbers too. **R** is the misfit between the measured
# patterns and those that the image predicts: 0 is perfect, and noise alone leaves a little.

# %%
image

# %% [markdown]
# The right answer is known here, so the image can be judged, where it had light. What ptychography leaves free (a phase, a
# ramp, a shift) is removed first.

# %%
from ptycho.evaluation import evaluate

lit = image.coverage > 0.2 * image.coverage.max()
judged = evaluate(image.object, scan.truth, origin_xy=image.origin_xy, coverage=lit)
print(f"complex NRMSE {judged.nrmse:.3f}, Fourier ring correlation 0.5 at {judged.frc50:.2f} of Nyquist")
