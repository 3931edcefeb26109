"""The differentiable forward model, written once over `ptycho.ops` for NumPy, PyTorch and TensorFlow.

`merging` and `region` lay patches on a common canvas, `diffraction` takes them to the detector, `losses`,
`penalties` and `label_losses` judge them, `seen` and `terms` tie these to a model and a batch, and
`diagnostics` watches. Every function takes arrays of one kind and gives arrays of the same kind; gradients
are those of the array's own package. `ptycho.physics` computes the same in another way, as the oracle of the
tests.
"""
