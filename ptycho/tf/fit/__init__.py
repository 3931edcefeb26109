"""The trainer of the TensorFlow backend: Keras' fit, its callbacks, and the checkpoints of a run."""
