"""`bouncer report`: what happened in a time, and what observe mode would have done.

`command` reads and prints; `page` makes the file for a colleague.
"""
