"""What users write (configs, muddlers, arg parsers) and its loading. Nothing here knows of connections."""
