"""The machinery of every sweep. What decides is pure; what talks to Ray is a thin module beside it."""
