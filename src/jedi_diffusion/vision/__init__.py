"""Networks that look at pictures, and what they share: preprocessing, and weights from installed packages."""
