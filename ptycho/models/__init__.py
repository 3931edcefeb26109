"""Trained models on disk: the bundle, the trained state, ONNX."""
