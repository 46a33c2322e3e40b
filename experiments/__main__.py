r"""`python -m experiments`: see `experiments.lab.commands`."""

from experiments.lab.commands import main

raise SystemExit(main())
