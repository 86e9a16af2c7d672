"""What a workload can show about itself."""
