"""Bringing a bounce to SES: once, in its slot, inside the 24 hours, or later."""
