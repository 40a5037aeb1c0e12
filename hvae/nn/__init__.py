"""Modules over the ops, for one, two or three spatial dimensions."""
