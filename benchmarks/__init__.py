"""Every figure that the project quotes, as a command that measures it beside its peer."""
