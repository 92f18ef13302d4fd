"""A sweep under randomly timed faults, beside the same sweep undisturbed. ``docs/chaos.md`` says what is promised."""
