# %% [markdown]
# # Train once, infer many
#
# A network learns from the diffraction alone what object patches look like under one probe. Then an image of another
# sample under the same probe takes a moment. This pays for many scans of one kind; for a single scan, the iterative
# engine of *Ten lines to an image* is faster and better.
#
# To stay under a minute this notebook trains far too little. `ptycho train` with its defaults trains properly.

# %%
import ptychopinn as pp

learn_from = pp.simulate(N=32, n_positions=225, step_px=4.0, photons=1e6, object="two_photographs")
model = pp.train(learn_from, epochs=12, probe_from="refine", probe_refine_sweeps=8)
model.plot()

# %% [markdown]
# The losses are on a logarithmic scale. Where validation rises while training falls, the network learns its own scan by
# heart: stop, or add scans.

# %%
model

# %% [markdown]
# **Other objects, one model.** Each image takes one pass through the network.

# %%
for name in ("cat_and_coins", "two_photographs"):
    other = pp.simulate(N=32, n_positions=225, step_px=4.0, photons=1e6, object=name, seed=7)
    image = pp.infer(other, model)
    print(f"{name}: R {image.r_factor:.3f}, {image.result.groups_per_s:.0f} patterns a second")

image.plot()

# %% [markdown]
# **Better where it counts.** The network's image is a good start for a few sweeps of the iterative engine.

# %%
refined = pp.reconstruct(
    other,
    sweeps=5,
    initial_object=image.object,
    initial_origin_xy=tuple(round(v) for v in image.origin_xy),
    initial_probe=image.probe,
)
print(f"R {image.r_factor:.3f} by the network, {refined.r_factor:.3f} after five sweeps")
refined.plot()
