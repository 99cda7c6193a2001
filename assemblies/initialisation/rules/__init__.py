"""Which source tensor and which operation initialise each target tensor."""
