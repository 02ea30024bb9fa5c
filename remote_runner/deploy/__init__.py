"""From a config to running programs: the plan (pure data), and the run that carries it out over the hosts."""
