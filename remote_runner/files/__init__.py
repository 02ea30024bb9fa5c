"""Bringing files to hosts: manifests of what should be there, comparison by size and SHA-1, transfer of the rest."""
