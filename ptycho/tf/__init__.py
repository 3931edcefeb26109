"""The TensorFlow backend: the rooms of `ptycho_torch`, function for function. Needs the extra ptychopinn[tf]."""
