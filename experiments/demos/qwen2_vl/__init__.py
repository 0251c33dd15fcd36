"""What demo/qwen2-vl is trained on and how."""
