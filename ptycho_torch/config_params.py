"""Kept for ptychodus and scripts that import it; see `ptycho.clients.four_configs`."""

from ptycho.clients.four_configs import DataConfig as DataConfig
from ptycho.clients.four_configs import DatagenConfig as DatagenConfig
from ptycho.clients.four_configs import InferenceConfig as InferenceConfig
from ptycho.clients.four_configs import ModelConfig as ModelConfig
from ptycho.clients.four_configs import TrainingConfig as TrainingConfig
