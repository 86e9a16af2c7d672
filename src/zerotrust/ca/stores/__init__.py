"""Where the CA keeps its records."""
