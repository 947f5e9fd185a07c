"""The judge: nets, training, prediction and features."""
