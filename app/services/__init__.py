"""What the service does. Only here are SQL statements run; each function takes the session it runs them on."""
