"""The PyTorch backend of ptychopinn. Importing it loads neither torch nor lightning."""
