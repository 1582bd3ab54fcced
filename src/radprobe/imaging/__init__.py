"""Reading images and volumes as their native intensities, and resizing them and predictions on them."""
