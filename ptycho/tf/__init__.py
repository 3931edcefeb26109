"""The TensorFlow backend: the rooms of `ptycho_torch`, function by function. Needs ptychopinn[tf]."""
