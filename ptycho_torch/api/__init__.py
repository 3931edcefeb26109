"""The surface that ptychodus' Lightning plugin calls; see `ptycho_torch.api.base_api`."""
