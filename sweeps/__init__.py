"""What is swept: one short module a sweep, run with ``python -m``."""

from trainables.interruption import while_importing

while_importing()
