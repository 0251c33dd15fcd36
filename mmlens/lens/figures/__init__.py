"""The lens drawn over pictures, videos and sounds."""
