"""What each position of a prompt is: its token group, its token set, its place in a medium."""
