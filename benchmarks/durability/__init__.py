"""What durability costs: reading a long journal, resuming a long sweep, and keeping everything while one trains."""
