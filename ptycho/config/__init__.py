"""Configuration: dataclasses, checks of single fields, YAML."""
