"""Same-subject training sets out of single-image models (section 3.1, Figure 3, Algorithm 1)."""
