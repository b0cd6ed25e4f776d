"""The adapters: everything that talks to AWS, and nothing that decides."""
