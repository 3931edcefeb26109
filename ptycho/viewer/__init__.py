"""A local page that shows a scan and its image: `ptycho view`; and what a run says while it goes on."""
