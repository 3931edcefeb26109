"""The configuration groups and presets as YAML files; `ptycho.experiments` reads them."""
