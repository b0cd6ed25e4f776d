"""The policy: which mail is refused, for which recipient, as what, and in which words."""
