"""The name under which saved MLflow models hold the function that opens them; it must stay."""

from ptycho.workflows.serving import load_pyfunc as _load_pyfunc

__all__ = ["_load_pyfunc"]
