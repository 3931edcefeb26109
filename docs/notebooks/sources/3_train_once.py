# %% [markdown]
# # Train once, infer many
#
# A network learns from the diffraction alone what object patches look like under one probe. Then an image of another
# sample under the same probe takes a moment. This pays for many scans of one kind; for a single scan, the iterative
# engine of *Ten lines to an image* is faster and better.
#
# To stay under a minute this notebook trains far too little. `ptycho train` with its defaults trains properly.

# %%
from pathlib import Path

from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.infer import infer
from ptycho.workflows.train import train

learn_from = simulate(Scenario(N=32, n_positions=225, step_px=4.0, photons=1e6, object="two_photographs"))
config = TrainingConfig(
    model=ModelConfig(N=32), nepochs=12, probe_from="refine", probe_refine_sweeps=8, output_dir=Path("model")
)
trained = train(learn_from.raw, None, config, PyTorchExecutionConfig(learning_rate=2e-3))
trained.plot()

# %% [markdown]
# The losses are on a logarithmic scale. Where validation rises while training falls, the network learns its own scan by
# heart: stop, or add scans.

# %%
trained

# %% [markdown]
# **Other objects, one model.** Each image takes one pass through the network.

# %%
from ptycho.report.showing import draw_reconstruction

for name in ("cat_and_coins", "two_photographs"):
    other = simulate(Scenario(N=32, n_positions=225, step_px=4.0, photons=1e6, object=name, seed=7))
    image = infer(trained.model, other.raw)
    print(f"{name}: R {image.agreement.whole:.3f}, {image.groups_per_s:.0f} patterns a second")

draw_reconstruction(image.object, coverage=image.image.coverage)

# %% [markdown]
# **Better where it counts.** The network's image is a good start for a few sweeps of the iterative engine.

# %%
from ptycho_torch.refine import reconstruct

refined = reconstruct(
    other.raw,
    initial_object=image.object,
    initial_origin_xy=tuple(round(v) for v in image.origin_xy),
    initial_probe=image.probe,
    epochs=5,
)
print(f"R {image.agreement.whole:.3f} by the network, {refined.r:.3f} after five sweeps")
refined.plot()
