"""Configuration: dataclasses, validation, YAML, and the one-way mirror to `ptycho.clients.params.cfg`."""
