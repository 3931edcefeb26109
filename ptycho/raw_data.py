"""The name under which ptychodus (1.2 to 1.7) and older scripts import a scan."""

from ptycho.clients.grouped_data import RawData as RawData
