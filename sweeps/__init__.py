"""What is swept: one short module a sweep, run with ``python -m``."""
