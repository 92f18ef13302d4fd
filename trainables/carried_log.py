"""What a trial's process on Ray logs, brought to the driver with its next report: it has no log of its own."""

import logging


class CarriedLog(logging.Handler):
    """Warnings of this process, each to be taken once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(f"{record.name}: {record.getMessage()}")

    def take(self) -> tuple[str, ...]:
        """The lines since it was called last."""
        lines, self._lines = self._lines, []
        return tuple(lines)
