"""What demo/qwen2-audio is trained on and how."""
