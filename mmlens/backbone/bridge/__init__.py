"""A TransformerBridge around the decoder."""
