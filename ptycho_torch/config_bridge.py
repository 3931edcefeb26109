"""Kept for scripts that import it; see `ptycho.clients.config_bridge`."""

from ptycho.clients.config_bridge import EXECUTION_LINKS as EXECUTION_LINKS
from ptycho.clients.config_bridge import INFERENCE_LINKS as INFERENCE_LINKS
from ptycho.clients.config_bridge import MODEL_LINKS as MODEL_LINKS
from ptycho.clients.config_bridge import OURS_UNMAPPED as OURS_UNMAPPED
from ptycho.clients.config_bridge import THEIRS_UNMAPPED as THEIRS_UNMAPPED
from ptycho.clients.config_bridge import TRAINING_LINKS as TRAINING_LINKS
from ptycho.clients.config_bridge import from_inference_config as from_inference_config
from ptycho.clients.config_bridge import from_training_config as from_training_config
from ptycho.clients.config_bridge import settings_without_effect as settings_without_effect
from ptycho.clients.config_bridge import to_execution_config as to_execution_config
from ptycho.clients.config_bridge import to_inference_config as to_inference_config
from ptycho.clients.config_bridge import to_model_config as to_model_config
from ptycho.clients.config_bridge import to_training_config as to_training_config
