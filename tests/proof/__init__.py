"""The promises under real processes, an atomic engine, and everything that goes wrong."""
