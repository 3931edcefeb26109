"""The name under which ptychodus 1.2 and older scripts save the model trained last."""

from ptycho.clients.model_manager import remember as remember
from ptycho.clients.model_manager import save as save
