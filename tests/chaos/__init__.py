"""Faults of servers, PostgreSQL, connections and callers, under load: what was confirmed is there, once and whole."""
