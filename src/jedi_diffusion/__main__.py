"""`python -m jedi_diffusion` is `jedi`: for launchers that start a module."""

from jedi_diffusion.cli import main

raise SystemExit(main())
