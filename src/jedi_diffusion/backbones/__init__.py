"""Networks that denoise sets of images, a file for each family."""
