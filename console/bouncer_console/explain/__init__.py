"""`bouncer explain`, `preview` and `replay`: what would happen, without doing it.

They take the function's own way through bouncer.inbound.Planner; nothing is decided twice.
"""
