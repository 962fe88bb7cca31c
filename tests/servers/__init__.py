"""Real servers for tests: PostgreSQL, and MLflow over it."""
