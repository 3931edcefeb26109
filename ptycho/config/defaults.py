"""Settings that train well, where nobody says anything: of `ptycho train` and of `ptychopinn.train`.

The defaults of the configuration classes are others and stay: clients and their files count on them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

TRAINS_WELL: MappingProxyType[str, Any] = MappingProxyType(
    {"nepochs": 60, "scheduler": "WarmupCosine", "gradient_clip_val": 1.0, "learning_rate": 2e-3}
)
