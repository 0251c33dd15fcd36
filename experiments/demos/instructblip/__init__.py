"""What demo/instructblip is trained on and how."""
