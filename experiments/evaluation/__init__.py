"""What is measured on a trained model besides its validation loss. `specs` needs no torch."""
