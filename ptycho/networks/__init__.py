"""Networks as data: graphs that both backends build, and the parts that stages train."""
