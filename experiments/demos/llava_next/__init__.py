"""What demo/llava-next is trained on and how."""
