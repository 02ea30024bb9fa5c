"""The command line: one module a command group. Options are parsed here and handed on; no logic lives here."""
