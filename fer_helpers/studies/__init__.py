"""What was researched: how the shipped weights were made, whether multi-task helps, speed."""
