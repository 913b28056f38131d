"""kill -9 of servers, of PostgreSQL and of consumers, under load: what was confirmed is there, once, and no half."""
