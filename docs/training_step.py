"""Draw docs/images/training_step.png: one training step with the arrays of a real, short training.

    python docs/training_step.py

A scan is simulated, a network is trained on it for 40 epochs, and four neighbouring patterns go through the
steps that `docs/glossary.md` names. Takes about two minutes on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch

from ptycho import physics
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.models.trained_state import load_trained_state
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.backend_selector import load_inference_bundle_with_backend, run_cdi_example_with_backend

TARGET = Path(__file__).resolve().parent / "images" / "training_step.png"
INK = "#222222"
N = 64


def trained(folder: Path):
    """The simulated scan, the model, and what it knows of the scan."""
    raw = simulate(Scenario(object="two_photographs", n_positions=400, seed=0)).raw
    config = TrainingConfig(
        model=ModelConfig(N=N), nepochs=40, output_dir=folder, probe_from="guess", gradient_clip_val=1.0
    )
    execution = PyTorchExecutionConfig(learning_rate=2e-3, accelerator="cpu")
    run_cdi_example_with_backend(raw, None, config, execution_config=execution)
    state, _ = load_trained_state(folder)
    model, _ = load_inference_bundle_with_backend(folder)
    return raw, model, state


def neighbours(positions_px, count=4):
    """Rows of the positions nearest to the middle of the scan."""
    distance = np.hypot(*(positions_px - positions_px.mean(0)).T)
    return np.argsort(distance)[:count]


def grid_of(images):
    """Four images as two by two, with a line of NaN between them."""
    tiles = [np.pad(image, 1, constant_values=np.nan) for image in images]
    return np.block([[tiles[0], tiles[1]], [tiles[2], tiles[3]]])


def main() -> None:
    """Train, compute one step with the oracle's operators, draw it."""
    with tempfile.TemporaryDirectory() as folder:
        raw, model, state = trained(Path(folder))
    known = state.scans[0]
    rows = neighbours(raw.positions_px)
    x = raw.amplitude()[rows] * known.x_scale
    patches = model.predict([(x * state.intensity_scale)[..., None]])[..., 0]
    light = np.sum(np.abs(known.probe) ** 2, 0)
    relative = raw.positions_px[rows] - raw.positions_px[rows].mean(0)
    canvas = physics.merge(patches, relative, light / light.max())
    views = physics.extract_group(canvas, relative, N)
    predicted = np.sqrt(physics.diffract(views, known.probe)) * np.exp(known.log_scale)
    loss = physics.amplitude_mae(predicted**2, x)

    lit = np.where(light > 0.02 * light.max(), 1.0, np.nan)
    reach = np.nonzero(~np.isnan(lit))
    box = np.s_[..., reach[0].min() - 1 : reach[0].max() + 2, reach[1].min() - 1 : reach[1].max() + 2]
    top = float(np.percentile(x, 99.9)) ** 0.5
    panels = [
        ("1  measured patterns x", grid_of(np.sqrt(x)), "magma", (0, top)),
        ("2  patches of the network, phase", grid_of((np.angle(patches) * lit)[box]), "viridis", None),
        ("3  common canvas, phase", np.where(np.abs(canvas) > 0, np.angle(canvas), np.nan), "viridis", None),
        ("4  what each pattern sees, phase", grid_of((np.angle(views) * lit)[box]), "viridis", None),
        ("5  predicted patterns", grid_of(np.sqrt(predicted)), "magma", (0, top)),
        ("6  predicted minus measured", grid_of(predicted - x), "RdBu_r", (-0.5, 0.5)),
    ]
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 7.2), facecolor="white")
    figure.subplots_adjust(left=0.02, right=0.98, top=0.93, bottom=0.09, wspace=0.24, hspace=0.34)
    for axis, (title, image, colours, limits) in zip(axes.ravel(), panels, strict=True):
        low, high = limits or (np.nanpercentile(image, 1), np.nanpercentile(image, 99))
        axis.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title, fontsize=10, color=INK, loc="left")
        axis.set_axis_off()
    notes = {
        (0, 0): "network", (0, 1): "merge", (1, 0): "probe,\ndiffract", (1, 1): "compare",
    }  # fmt: skip
    for (row, column), text in notes.items():
        left, right = axes[row, column].get_position(), axes[row, column + 1].get_position()
        y = (left.y0 + left.y1) / 2
        arrow(figure, (left.x1 + 0.004, y), (right.x0 - 0.004, y), text, (0, 0.022))
    above, below = axes[0, 2].get_position(), axes[1, 0].get_position()
    middle = (above.y0 + axes[1, 0].get_position().y1) / 2 + 0.004
    figure.add_artist(plt.Line2D((0.83, 0.83, 0.17), (above.y0 - 0.006, middle, middle), color=INK, lw=1.2))
    arrow(figure, (0.17, middle), (0.17, below.y1 + 0.034), "", (0, 0))
    figure.text(
        0.5, middle + 0.008, "extract: the canvas under each position", ha="center", fontsize=9, color=INK
    )
    caption = (
        f"The loss (here mean |6| = {loss:.3f} in the gauge of x) is made smaller: its gradient goes back "
        "through\nthe same steps to the weights of the network. Four neighbouring positions after 40 epochs "
        "on a simulated scan."
    )
    figure.text(0.02, 0.03, caption, fontsize=9, color=INK)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=110)


def arrow(figure, start, end, text, offset) -> None:
    """An arrow in figure coordinates with a word above its middle."""
    figure.add_artist(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=INK, lw=1.2))
    x, y = ((start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1])
    figure.text(x, y, text, ha="center", fontsize=8.5, color=INK)


if __name__ == "__main__":
    main()
