"""Both backends on one scan, step by step: where they agree, to how many digits, and where they do not."""
