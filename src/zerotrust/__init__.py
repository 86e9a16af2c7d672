"""Every call between services proves who is calling, or it is refused."""
