"""Time one GRPO step."""
