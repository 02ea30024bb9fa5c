"""What a person sees of a run. It reads events and nothing else; nothing below imports it."""
