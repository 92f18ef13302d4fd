"""Reads what a sweep recorded: fronts, tables, pictures, exports. Starts no training, needs no ray."""
