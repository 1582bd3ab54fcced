"""What a person asks for: a command is not a step of the workflow."""
