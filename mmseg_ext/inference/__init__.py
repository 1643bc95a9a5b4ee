"""Predicting images, folders and videos with a trained model, and labelling with one."""
