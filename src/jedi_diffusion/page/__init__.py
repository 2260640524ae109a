"""Reports as one HTML file that needs no network, and their tables as Markdown and LaTeX."""
