"""What watches a run without changing it; one small file each."""
