"""Work on images whose pixels are known: registration, cropping, stitching."""
