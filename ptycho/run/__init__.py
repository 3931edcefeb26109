"""What a run needs beside its backend: preparation, batches, schedules, starting probe, state, records."""
