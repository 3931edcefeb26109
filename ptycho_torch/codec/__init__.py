"""The learned codec: its network, its training, and the latents of a scan."""
