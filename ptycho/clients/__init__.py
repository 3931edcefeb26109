"""What programs outside call: legacy names and layouts, converted at the door."""
