"""Results for people: figures, and pages that hold them."""
