"""What a synthesis run made and how good it is, on one page (section 6 and Table 8 of the paper)."""
